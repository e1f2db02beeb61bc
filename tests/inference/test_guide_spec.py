"""GuideSpec: what NFVI hands on, and what becomes of its dtype and seed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from nfvi import NFVI, LogDensity
from nfvi.inference.guide_spec import GuideSpec


class OfItsOwnDtype(LogDensity):
    dtype = torch.float64


def normal(z: torch.Tensor) -> torch.Tensor:
    return -0.5 * z.square().sum(-1)


def test_is_what_nfvi_was_given_and_cannot_be_changed() -> None:
    nfvi = NFVI("planar*2", base="laplace", jitter=0.3, seed=4, dtype=torch.float64, device="cpu")
    spec = nfvi.spec
    assert spec == GuideSpec(nfvi.formula, nfvi.base, 0.3, 4, torch.float64, torch.device("cpu"))
    with pytest.raises(FrozenInstanceError):
        spec.seed = 5  # type: ignore[misc]


def test_guide_has_everything_of_the_spec() -> None:
    spec = NFVI("planar*2", base="laplace", jitter=0.0, seed=4).spec
    guide = spec.guide(3, torch.float64, torch.Generator().manual_seed(0))
    assert (str(guide.formula), str(guide.base), guide.dim) == ("planar*2", "laplace", 3)
    assert guide.dtype == torch.float64 and guide.device == spec.device
    z = guide.base_sample(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(guide.transform(z)[0], z)  # no jitter: the identity


@pytest.mark.parametrize(
    ("asked", "own", "found"),
    [
        (torch.float32, torch.float64, torch.float32),
        (None, torch.float64, torch.float64),
        (None, None, torch.float32),
    ],
)
def test_dtype_asked_for_then_that_of_the_target_then_the_default(asked, own, found) -> None:
    spec = NFVI("loc", dtype=asked).spec
    assert spec.dtype_or(own) == found
    target = OfItsOwnDtype(normal, 2) if own is torch.float64 else LogDensity(normal, 2)
    assert spec.target_dtype(target) == found


def test_a_seed_that_was_given_is_kept_and_others_are_new() -> None:
    assert NFVI("loc", seed=7).spec.fresh_seed() == 7
    spec = NFVI("loc").spec
    assert spec.fresh_seed() != spec.fresh_seed()  # of 2⁴⁸: equal once in 3e14 runs
