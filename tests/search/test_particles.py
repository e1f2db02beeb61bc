"""Particles: their log Z, and that they find every mode."""

from __future__ import annotations

import math

import pytest
import torch

from models.mixture import GaussianMixture
from nfvi.search.particles import CONDITIONAL_ESS, PARTICLES, BroadBase, anneal
from nfvi.targets import LogDensity

DTYPE = torch.float64
FIVE = 5.0
BASE = BroadBase(torch.zeros(2, dtype=DTYPE), torch.full((2,), 8.0, dtype=DTYPE))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(stages: int) -> float:
    """Of log Z: a stage whose conditional ESS is 0.9 n has a variance of (1 / 0.9 − 1) / n."""
    return math.sqrt(stages * (1 / CONDITIONAL_ESS - 1) / PARTICLES)


class TestBase:
    def test_its_density_is_a_t(self):
        base = BroadBase(torch.tensor([1.0], dtype=DTYPE), torch.tensor([3.0], dtype=DTYPE))
        x = torch.linspace(-50, 50, 101, dtype=DTYPE)
        expected = torch.distributions.StudentT(5.0, 1.0, 3.0).log_prob(x)
        torch.testing.assert_close(base.log_prob(x.unsqueeze(1)), expected)

    def test_its_draws_are_those_of_its_density(self):
        """E exp(log h − log b) over draws of b is 1 for a density h narrower than b."""
        x = BASE.sample(100_000, stream())
        h = torch.distributions.Normal(torch.zeros(2, dtype=DTYPE), 4.0).log_prob(x).sum(1)
        weights = (h - BASE.log_prob(x)).exp()
        assert abs(float(weights.mean()) - 1) < FIVE * float(weights.std()) / 100_000**0.5

    def test_a_seed_gives_the_same_draws(self):
        a, b, c = (BASE.sample(5, stream(seed)) for seed in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("dtype", [torch.float32, DTYPE], ids=str)
def test_log_z_of_a_gaussian(dtype):
    """exp(−|z − 2|² / (2 · 0.3²)): Z is 2π · 0.09."""
    target = LogDensity(lambda z: -0.5 * ((z - 2) / 0.3).square().sum(-1), 2)
    found = anneal(target, BASE, stream(), dtype)
    assert found.done and found.z.dtype == dtype and len(found.z) == PARTICLES
    right = math.log(2 * math.pi * 0.09)
    assert abs(found.log_z - right) < FIVE * error(found.stages)
    assert float((found.z.mean(0) - 2).abs().max()) < FIVE * 0.3 * 2 / PARTICLES**0.5


def test_two_modes_far_apart():
    """Shares of 0.3 and 0.7; each stage resamples, and adds its part to the error of a share."""
    means = torch.tensor([[-10.0, 0.0], [10.0, 5.0]], dtype=DTYPE)
    covariances = torch.eye(2, dtype=DTYPE).expand(2, 2, 2) * 0.25
    target = GaussianMixture(torch.tensor([0.3, 0.7], dtype=DTYPE), means, covariances)
    found = anneal(target, BASE, stream(), DTYPE)
    assert found.done and abs(found.log_z) < FIVE * error(found.stages)
    share = float((found.z[:, 0] < 0).double().mean())
    assert abs(share - 0.3) < FIVE * error(found.stages)


def test_a_seed_gives_the_same_particles_and_costs_are_counted():
    seen = []

    def log_prob(z):
        seen.append(z.requires_grad and len(z))
        return -0.5 * z.square().sum(-1)

    target = LogDensity(log_prob, 2, batched=True)
    target.check(DTYPE)
    seen.clear()
    a = anneal(target, BASE, stream(3), DTYPE, n=64)
    counted = [n for n in seen if n]
    assert (a.batched_evaluations, a.gradient_evaluations) == (len(counted), sum(counted))
    b, c = (anneal(target, BASE, stream(seed), DTYPE, n=64) for seed in (3, 4))
    assert torch.equal(a.z, b.z) and a.log_z == b.log_z and a.log_z != c.log_z


def test_it_ends_early_when_told():
    target = LogDensity(lambda z: -50 * z.square().sum(-1), 2)
    found = anneal(target, BASE, stream(), DTYPE, n=64, enough=lambda: True)
    assert not found.done and found.stages == 0 and found.gradient_evaluations == 0


def test_a_target_that_is_nowhere_finite_in_a_half():
    """Particles there get no weight; half of the mass is on the other side."""
    target = LogDensity(
        lambda z: torch.where(z[:, 0] < 5, -0.5 * (z - 5).square().sum(-1), torch.nan), 2
    )
    found = anneal(target, BASE, stream(), DTYPE)
    assert found.done and bool((found.z[:, 0] < 5).all())
    # A part of the base is lost at once, which adds the variance of a share: less than 1 / n.
    off = FIVE * math.hypot(error(found.stages), PARTICLES**-0.5)
    assert abs(found.log_z - math.log(math.pi)) < off
