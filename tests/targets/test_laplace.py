"""Laplace's approximation: exact on Gaussians, and none where a mode is degenerate."""

from __future__ import annotations

import pytest
import torch

from models import eight_schools, make_gaussian
from nfvi.starts.pathfinder import ascend
from nfvi.targets import (
    LogDensity,
    as_target,
    batches_of_laplace,
    laplace,
    laplace_all,
    numbers_per_point,
)

DTYPE = torch.float64


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_it_is_exact_on_gaussians(condition):
    target = make_gaussian(20, condition=condition, seed=0)
    tril = laplace(target, target.mean, DTYPE)
    torch.testing.assert_close(tril @ tril.T, target.covariance, rtol=1e-5, atol=1e-5)


def test_units_do_not_matter():
    """sds of 10⁻⁴ and 10⁴ side by side."""
    sd = torch.tensor([1e-4, 1.0, 1e4], dtype=DTYPE)
    target = LogDensity(lambda z: -0.5 * (z / sd).square().sum(-1), 3, batched=True)
    tril = laplace(target, torch.zeros(3, dtype=DTYPE), DTYPE)
    torch.testing.assert_close(tril, sd.diag_embed(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "log_prob"),
    [
        (
            "a direction without curvature",
            lambda z: -0.5 * z[:, 0].square() - (z[:, 1].abs() - 1).relu(),
        ),
        ("a valley", lambda z: -0.5 * (z[:, 0] - z[:, 1]).square()),
        ("a saddle", lambda z: -0.5 * z[:, 0].square() + 0.1 * z[:, 1].square()),
        ("a hole", lambda z: torch.where(z[:, 0].abs() < 1e-3, torch.nan, -z.square().sum(-1))),
    ],
)
def test_there_is_none_where_the_mode_is_degenerate(name, log_prob):
    target = LogDensity(log_prob, 2, batched=True, name=name)
    assert laplace(target, torch.zeros(2, dtype=DTYPE), DTYPE) is None


def test_there_is_none_for_the_centred_eight_schools():
    target = as_target(eight_schools)
    end = ascend(target, torch.zeros(target.dim, dtype=DTYPE), DTYPE).points[-1]
    assert laplace(target, end, DTYPE) is None


def test_single_precision():
    """Differences of gradients over steps of 10⁻³ leave three digits."""
    target = make_gaussian(3, condition=10.0, seed=0)
    tril = laplace(target, target.mean, torch.float32)
    assert tril.dtype == DTYPE
    torch.testing.assert_close(tril @ tril.T, target.covariance, rtol=0.01, atol=0.01)


def test_it_takes_one_batch_of_2_d_points():
    seen = []

    def log_prob(z):
        seen.append(len(z))
        return -0.5 * z.square().sum(-1)

    target = LogDensity(log_prob, 3, batched=True)
    target.check(DTYPE)
    seen.clear()
    laplace(target, torch.zeros(3, dtype=DTYPE), DTYPE)
    assert seen == [6]


def test_several_modes_share_batches():
    """Curvatures 1, 4 and 9 at three modes, and a saddle, in one batch of 2 × 4 × 2 points."""
    seen = []
    at = torch.tensor([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]], dtype=DTYPE)
    curvature = torch.tensor([1.0, 4.0, 9.0, -1.0], dtype=DTYPE)

    def log_prob(z):
        seen.append(len(z))
        near = (z[:, 0] / 10).round().long()
        return -0.5 * (curvature[near] * (z - at[near]).square().sum(-1))

    target = LogDensity(log_prob, 2, batched=True)
    target.check(DTYPE)
    seen.clear()
    *found, none = laplace_all(target, at, DTYPE)
    assert seen == [16] and batches_of_laplace(4, 2) == 1 and none is None
    for tril, sd in zip(found, (1, 1 / 2, 1 / 3), strict=True):
        torch.testing.assert_close(tril, sd * torch.eye(2, dtype=DTYPE), rtol=1e-5, atol=1e-7)


def test_many_differences_are_several_batches():
    """Five modes in d = 100: 500 differences, 300 at once."""
    seen = []

    def log_prob(z):
        seen.append(len(z))
        return -0.5 * z.square().sum(-1)

    target = LogDensity(log_prob, 100, batched=True)
    numbers_per_point(target, torch.zeros(2, 100, dtype=DTYPE))  # counted once for a target
    seen.clear()
    found = laplace_all(target, torch.zeros(5, 100, dtype=DTYPE), DTYPE)
    assert seen == [600, 400] and batches_of_laplace(5, 100) == 2
    for tril in found:
        torch.testing.assert_close(tril, torch.eye(100, dtype=DTYPE), rtol=1e-5, atol=1e-7)
