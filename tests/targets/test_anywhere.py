"""A batch with points at which a factorisation fails loses those points, and no others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Budget, LogDensity
from nfvi.targets import numbers_per_point
from nfvi.targets.anywhere import log_prob_anywhere
from nfvi.targets.score import log_prob_and_score

DTYPE = torch.float64
EYE = torch.eye(2, dtype=DTYPE)


def target(edge: float) -> LogDensity:
    """N(0, I), by way of the matrix [[1, a], [a, 1]], a = z₀ / edge, definite for |a| < 1 alone."""

    def log_prob(z: Tensor) -> Tensor:
        a = z[:, 0] / edge
        matrices = EYE.to(z) + a[:, None, None] * (1 - EYE.to(z))
        return 0 * torch.linalg.cholesky(matrices).sum((-2, -1)) - 0.5 * z.square().sum(-1)

    return LogDensity(log_prob, 2, batched=True)


def by(function) -> LogDensity:
    """N(0, I), by way of a function of those matrices with edge 4 that fails where they do."""

    def log_prob(z: Tensor) -> Tensor:
        a = z[:, 0] / 4
        matrices = EYE.to(z) + a[:, None, None] * (1 - EYE.to(z))
        return 0 * function(matrices).flatten(1).sum(1) - 0.5 * z.square().sum(-1)

    return LogDensity(log_prob, 2, batched=True)


def raising(matrices: Tensor) -> Tensor:
    """An error of the user's own, which no other function of torch can stand in for."""
    if bool((matrices[:, 0, 1].abs() >= 1).any()):
        raise torch.linalg.LinAlgError("no covariance")
    return matrices


def singular(matrices: Tensor) -> Tensor:
    """Zero where the first coordinate is beyond the edge."""
    return torch.where((matrices[:, :1, 1:].abs() >= 1), 0.0, 1.0) * EYE


FUNCTIONS = [
    torch.linalg.cholesky,
    torch.Tensor.cholesky,
    lambda m: torch.linalg.inv(singular(m) * m),
    lambda m: torch.inverse(singular(m) * m),
    lambda m: torch.linalg.solve(singular(m) * m, EYE[0]),
    lambda m: torch.linalg.solve(singular(m) * m, EYE),
    lambda m: torch.vmap(torch.linalg.cholesky)(m),
    raising,
]


@pytest.mark.filterwarnings("ignore:torch.cholesky is deprecated:UserWarning")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("first", [[0.0, 1.0, 5.0, -6.0, 0.5], [5.0], [6.0, -7.0], [0.5]])
def test_the_points_at_fault_alone_are_nan(first, function):
    z = torch.tensor([[x, 0.5] for x in first], dtype=DTYPE, requires_grad=True)
    density = by(function)
    density.log_prob(torch.zeros(2, 2, dtype=DTYPE))  # the first call, which is tried out, is over
    log_p = log_prob_anywhere(density, z)
    good = z[:, 0].abs() < 4
    assert log_p.shape == (len(first),) and torch.equal(log_p.isfinite(), good)
    (score,) = torch.autograd.grad(log_p.sum(), z)
    torch.testing.assert_close(score[good], -z[good].detach())
    assert function is raising or bool(score[~good].isnan().any(-1).all())
    again, slope = log_prob_and_score(density, z)
    torch.testing.assert_close(again, log_p.detach(), equal_nan=True)
    torch.testing.assert_close(slope[good], -z[good].detach())
    assert torch.equal(again.isfinite(), good)


def test_one_call_more_does_for_a_whole_batch():
    density, calls = target(4.0), []
    numbers_per_point(density, torch.zeros(2, 2, dtype=DTYPE))  # counted once for a target
    inner = density.log_prob
    density.log_prob = lambda z: calls.append(len(z)) or inner(z)
    z = 9 * torch.randn(1_000, 2, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    assert int(log_prob_anywhere(density, z).isnan().sum()) > 500 and calls == [1_000, 1_000]


class TestFits:
    """Each needs points at fault among its draws, so the seeds are fixed."""

    def test_auto_keeps_the_gaussian_that_is_right(self):
        """4.7 in 10 000 of N(0, I) are at fault, and those that are met are counted."""
        fit = NFVI("auto", seed=0, dtype=DTYPE).fit(
            target(3.5), budget=Budget(steps=1), progress=False
        )
        assert 0 < fit.diagnostics.not_finite < 20
        assert fit.stopped in ("auto", "the budget of 1 steps was spent")
        assert fit.verify(chains=500).gradient_evaluations > 0

    @pytest.mark.parametrize("draws", ["iid", "qmc"])
    def test_a_formula_skips_the_steps_that_meet_them(self, draws):
        """27 in 10 000, in half of the steps; a restart is given up after 100 in a row alone."""
        fit = NFVI("scale-loc", seed=1, dtype=DTYPE).fit(
            target(3.0), steps=60, n_mc=256, restarts=1, anneal=False, draws=draws, progress=False
        )
        assert 0 < fit.restarts[0].skipped < 60
        assert 5 < fit.diagnostics.not_finite < 50
