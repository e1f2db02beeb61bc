"""CheckedTarget: tried out once for each dtype and device, and evaluated as was chosen there."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from nfvi import TargetError
from nfvi.targets.base import CheckedTarget


class Counted(CheckedTarget):
    """Minus the square of z (n, 2), with a record of the points that it was tried out on."""

    dim = 2
    name = "counted"

    def __init__(self, batching: str = "batch") -> None:
        super().__init__()
        self.wanted = batching
        self.seen: list[Tensor] = []

    def _number_of_probes(self) -> int:
        return 5

    def _choose(self, points):
        self.seen.append(points)
        return lambda z: -z.square().sum(-1), self.wanted, "it was asked for"

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"z": z}


def test_is_tried_out_once_for_each_dtype() -> None:
    target = Counted()
    z = torch.ones(3, 2)
    for _ in range(2):
        assert target.log_prob(z).tolist() == [-2.0] * 3
        assert target.log_prob(z.double()).dtype == torch.float64
    assert [points.dtype for points in target.seen] == [torch.float32, torch.float64]
    assert all(points.shape == (5, 2) for points in target.seen)


@pytest.mark.parametrize(
    ("own", "asked", "found"),
    [
        (None, None, torch.float32),
        (torch.float64, None, torch.float64),
        (torch.float64, torch.float32, torch.float32),
    ],
)
def test_the_dtype_of_a_check(own, asked, found) -> None:
    target = Counted()
    target.dtype = own
    target.check(asked)
    assert target.seen[0].dtype == found


def test_a_check_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    Counted().check()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loop_is_warned_of_once_where_it_was_called() -> None:
    target = Counted("loop")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        target.log_prob(torch.ones(1, 2))
        target.log_prob(torch.ones(1, 2).double())
    (warning,) = caught
    assert str(warning.message).endswith("which is slow, because it was asked for")
    assert warning.filename == __file__ and target.batching == "loop"


def test_points_of_another_shape() -> None:
    for z in (torch.ones(2), torch.ones(3, 1), torch.ones(1, 3, 2)):
        with pytest.raises(TargetError, match=r"takes z of shape \(n, 2\); got"):
            Counted().log_prob(z)


def test_without_a_sampler_there_are_no_exact_draws() -> None:
    target = Counted()
    assert not target.has_sampler
    with pytest.raises(TargetError, match="'counted' has no exact sampler"):
        target.sample(3)
