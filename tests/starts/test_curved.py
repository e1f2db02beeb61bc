"""Gaussians of full rank in many dimensions, by the curvature at a mode."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, LogDensity
from nfvi.starts import curved, find_start, starts
from nfvi.starts.curved import fit_by_curvature

DIM = 320
DTYPE = torch.float64
PRECISION = torch.eye(DIM, dtype=DTYPE) * 2.5 - torch.diag(torch.ones(DIM - 1, dtype=DTYPE), 1)
PRECISION = PRECISION - torch.diag(torch.ones(DIM - 1, dtype=DTYPE), -1)
MEAN = torch.linspace(-3, 3, DIM, dtype=DTYPE)


def chain(z: Tensor) -> Tensor:
    """A Gaussian whose neighbours go together: no diagonal one comes near."""
    shifted = z - MEAN.to(z)
    return -0.5 * ((shifted @ PRECISION.to(z)) * shifted).sum(-1)


def counts(z: Tensor) -> Tensor:
    """Poisson counts of 1 with a log-rate that is N(0, 1)."""
    return (z - z.exp() - 0.5 * z.square()).sum(-1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, DTYPE], ids=str)
def test_a_gaussian_is_found_with_all_its_correlations(dtype):
    found = find_start(LogDensity(chain, DIM, batched=True), "auto", generator(), dtype)
    log_z = 0.5 * DIM * math.log(2 * math.pi) - 0.5 * float(torch.logdet(PRECISION))
    assert found.name == "laplace" and found.tril.shape == (DIM, DIM)
    assert found.elbo == pytest.approx(log_z, abs=0.01 if dtype == torch.float32 else 1e-6)
    torch.testing.assert_close(found.loc, MEAN, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.tril @ found.tril.T, PRECISION.inverse(), atol=2e-3, rtol=2e-3)
    # The diagonal one was tried, and is many nats worse.
    assert found.diagonal is not None
    assert found.diagonal[1].square().sum() < 0.9 * (found.tril @ found.tril.T).trace()


def test_it_comes_to_the_best_gaussian():
    """E[∇ log p] = 1 − e − μ and E[∂²log p] = −1 − e in each coordinate, e = exp(μ + s²/2).

    So s² = 1 / (2 − μ) at the best one; at the mode it is 1/2.
    """
    target = LogDensity(counts, DIM, batched=True)
    mode = torch.zeros(DIM, dtype=DTYPE)
    found = fit_by_curvature(target, mode, generator(), DTYPE, lambda _: False)
    assert found is not None
    covariance = found.tril @ found.tril.T
    variance = covariance.diagonal()
    slope = 1 - (found.loc + variance / 2).exp() - found.loc
    # Of 6 400 draws in mirrored pairs the slope of exp is known to 0.01.
    assert slope.abs().max() < 0.06 and abs(float(slope.mean())) < 0.005
    # It is shrunk towards the 0.5 of the mode.
    torch.testing.assert_close(variance.mean(), (1 / (2 - found.loc)).mean(), atol=4e-3, rtol=0)
    best = torch.tensor(-0.2, dtype=DTYPE)
    for _ in range(100):
        best = 0.5 * best + 0.5 * (1 - (best + 0.5 / (2 - best)).exp())
    highest = elbo_of_counts(best.expand(DIM), torch.eye(DIM, dtype=DTYPE) / (2 - best))
    # Laplace's is 6 nats below it, and with the mean alone moved it is 0.3.
    assert highest - 0.06 < elbo_of_counts(found.loc, covariance) < highest


def elbo_of_counts(loc: Tensor, covariance: Tensor) -> float:
    variance = covariance.diagonal()
    value = (loc - (loc + variance / 2).exp() - 0.5 * (loc.square() + variance)).sum()
    entropy = 0.5 * len(loc) * math.log(2 * math.pi * math.e) + 0.5 * torch.logdet(covariance)
    return float(value + entropy)


def test_what_is_noise_is_shrunk_away():
    """Residuals that have nothing to do with ε, beside those that are half of it."""
    noise = torch.randn(2_000, 100, generator=generator(), dtype=DTYPE)
    other = torch.randn(2_000, 100, generator=generator().manual_seed(1), dtype=DTYPE)
    true = 0.5 * torch.eye(100, dtype=DTYPE)
    for residual, slope, most in ((other, 0 * true, 0.05), (other + 0.5 * noise, true, 0.95)):
        raw = residual.T @ noise / len(noise)
        square = float(residual.square().sum(1).mean())
        shrunk = curved._shrunk(raw, square, len(noise))
        plain = 0.5 * (raw + raw.T)
        assert (shrunk - slope).square().sum() < most * (plain - slope).square().sum()
        assert torch.equal(shrunk, shrunk.T)


def test_nothing_is_spent_on_the_shape_of_what_is_gaussian():
    target = LogDensity(chain, DIM, batched=True)
    found = fit_by_curvature(target, MEAN, generator(), DTYPE, lambda _: False)
    assert found is not None
    # The curvature, one step of the mean and the first batch that says that C is nothing.
    assert found.gradient_evaluations == 2 * DIM + 1_000 + 250


def test_where_there_is_no_curvature_there_is_none():
    """Between two wells, where ascents from 0 stay, log p is curved upwards."""
    wells = LogDensity(lambda z: -0.25 * (z.square() - 1).square().sum(-1), DIM, batched=True)
    mode = torch.zeros(DIM, dtype=DTYPE)
    assert fit_by_curvature(wells, mode, generator(), DTYPE, lambda _: False) is None
    assert find_start(wells, "auto", generator(), DTYPE).tril.shape == (DIM,)


def test_a_budget_ends_it_after_any_turn():
    target = LogDensity(counts, DIM, batched=True)
    mode = torch.zeros(DIM, dtype=DTYPE)
    found = fit_by_curvature(target, mode, generator(), DTYPE, lambda _: True)
    assert found is not None and torch.equal(found.loc, mode)
    assert found.gradient_evaluations == 2 * DIM


def test_the_limit(monkeypatch):
    monkeypatch.setattr(starts, "CURVED_LIMIT", DIM - 1)
    found = find_start(LogDensity(chain, DIM, batched=True), "auto", generator(), DTYPE)
    assert found.name == "gaussian" and found.tril.dim() == 1


def test_a_climb_keeps_it_and_flows_stand_on_it():
    fit = NFVI("auto", seed=0).fit(LogDensity(chain, DIM, batched=True), progress=False)
    assert str(fit.formula) == "tril" and fit.khat < 0.5
    assert [str(rung.formula) for rung in fit.path] == ["scale-loc", "tril"]
