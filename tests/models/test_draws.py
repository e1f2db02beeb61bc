"""Exact draws and constants of the zoo, against quadrature, Stein's identity and known moments.

Every statistical test has a fixed seed and a bound of five standard errors. With the some 2 300
statistics here another seed would raise a false alarm about once in 750 times.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import models
from models.potentials import POT1_MASS_LEFT, mass_left
from nfvi.targets import LogDensity

TARGETS = {
    target.name: target
    for target in (
        models.pot1,
        models.pot2,
        models.pot3,
        models.pot4,
        models.funnel,
        models.funnel_2d,
        models.banana,
        models.make_banana(5),
        models.gaussian,
        models.gaussian_20d,
        models.mixture,
        models.mixture_10d,
    )
}
PLANE = [name for name, target in TARGETS.items() if target.dim == 2]
DRAWS = 100_000
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
each_mixture = pytest.mark.parametrize(
    "target", [models.mixture, models.mixture_10d], ids=["2d", "10d"]
)


def draw(target: LogDensity) -> Tensor:
    return target.sample(DRAWS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_mean(values: Tensor, expected: Tensor | float) -> None:
    """The means of values (n, *) are as expected, within five standard errors."""
    error = values.std(0) / math.sqrt(len(values))
    assert bool(((values.mean(0) - expected).abs() < 5 * error).all())


def trapezoid(low: float, high: float, step: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the trapezoidal rule, exact to exp(-2π²σ²/step²) for a width σ."""
    nodes = torch.arange(low, high, step, dtype=torch.float64)
    return nodes, torch.full_like(nodes, step)


def laplace_rule() -> tuple[Tensor, Tensor]:
    """A rule for z0 of pot2 to pot4: trapezoidal in s, with z0 = ±exp(s - exp(-s)).

    The map sends the kink at 0 to s = -∞, where the integrand vanishes doubly exponentially.
    """
    s, step = trapezoid(-3.5, 6.0, 0.02)
    nodes = torch.exp(s - torch.exp(-s))
    weights = step * nodes * (1 + torch.exp(-s))
    return torch.cat([-nodes, nodes]), torch.cat([weights, weights])


def rule(name: str) -> tuple[Tensor, Tensor]:
    """Points (n, 2) and log-weights (n,) that cover the mass of a target of the plane."""
    if name in ("pot2", "pot3", "pot4"):
        axes = laplace_rule(), trapezoid(-8, 5, 0.1)
    elif name == "banana":
        axes = trapezoid(-80, 80, 0.5), trapezoid(-195, 13, 0.25)
    elif name == "funnel_2d":
        axes = trapezoid(-25, 25, 0.25), trapezoid(-9, 9, 0.25)
    else:
        axes = trapezoid(-10, 10, 0.05), trapezoid(-10, 10, 0.05)
    (a, weights_a), (b, weights_b) = axes
    points = torch.cartesian_prod(a, b)
    log_weights = torch.cartesian_prod(weights_a, weights_b).log().sum(-1)
    if name == "funnel_2d":  # a grid in x itself would miss the neck or the mouth
        points, log_weights = widen(points), log_weights + 0.5 * points[:, 0]
    return points, log_weights


def widen(u: Tensor) -> Tensor:
    """From (v, x exp(−v/2)), in which a funnel is Gaussian, to (v, x)."""
    return torch.cat([u[:, :1], u[:, 1:] * torch.exp(0.5 * u[:, :1])], dim=-1)


@pytest.mark.parametrize("name", PLANE)
def test_log_normalizer_agrees_with_quadrature(name: str) -> None:
    points, log_weights = rule(name)
    quadrature = (TARGETS[name].log_prob(points) + log_weights).logsumexp(0)
    assert quadrature.item() == pytest.approx(TARGETS[name].log_normalizer, abs=1e-7)


@pytest.mark.parametrize("name", [name for name in PLANE if name != "funnel_2d"])
def test_exact_draws_have_the_expectations_of_the_density(name: str) -> None:
    points, log_weights = rule(name)
    mass = (TARGETS[name].log_prob(points) + log_weights).softmax(0)
    draws = draw(TARGETS[name])
    for test in (torch.tanh, torch.sin, lambda z: torch.cos(2 * z), lambda z: torch.exp(-(z**2))):
        assert_mean(test(draws), mass @ test(points))
        assert_mean(test(draws).prod(-1), mass @ test(points).prod(-1))


@each_target
def test_exact_draws_satisfy_steins_identity(target: LogDensity) -> None:
    """E[∇log p] = 0 and E[u ∇log pᵀ] = −I, in the coordinates u in which p has light tails."""
    funnel = "funnel" in target.name
    u = draw(target)
    if funnel:
        u = torch.cat([u[:, :1], u[:, 1:] * torch.exp(-0.5 * u[:, :1])], dim=-1)
    u.requires_grad_()
    value = target.log_prob(widen(u) if funnel else u).sum()
    if funnel:
        value = value + 0.5 * (target.dim - 1) * u[:, 0].sum()
    (score,) = torch.autograd.grad(value, u)
    u = u.detach()
    assert_mean(score, 0.0)
    assert_mean(u.unsqueeze(-1) * score.unsqueeze(-2), -torch.eye(target.dim, dtype=u.dtype))


@each_target
def test_exact_draws_average_a_density_ratio_to_one(target: LogDensity) -> None:
    """E_p[q / p] = 1 for a normal q with lighter tails: draws, density and log Z together."""
    draws = draw(target)
    if isinstance(target, models.Gaussian):
        q = dist.MultivariateNormal(target.mean, 0.9 * target.covariance)
    else:
        centre = draws[7]
        near = (draws - centre).abs().amax(-1) < 3
        q = dist.MultivariateNormal(centre, 0.3 * torch.cov(draws[near].T))
    log_ratio = q.log_prob(draws) - target.log_prob(draws) + target.log_normalizer
    assert_mean(log_ratio.exp(), 1.0)


def test_modes_of_pot1_have_equal_mass() -> None:
    share = mass_left(draw(models.pot1))
    assert abs(share - POT1_MASS_LEFT) < 5 * 0.5 / math.sqrt(DRAWS)


@each_mixture
def test_responsibilities_estimate_the_weights_of_a_mixture(
    target: models.GaussianMixture,
) -> None:
    responsibilities = target.responsibilities(draw(target))
    assert_mean(responsibilities, target.weights)
    torch.testing.assert_close(responsibilities.sum(-1), torch.ones(DRAWS, dtype=torch.float64))


@pytest.mark.parametrize(
    "target",
    [models.gaussian, models.gaussian_20d, models.mixture, models.mixture_10d],
    ids=lambda target: target.name,
)
def test_mean_and_covariance_are_those_of_the_draws(
    target: models.Gaussian | models.GaussianMixture,
) -> None:
    centred = draw(target) - target.mean
    assert_mean(centred, 0.0)
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), target.covariance)


def test_moments_of_funnel_and_banana_are_the_documented_ones() -> None:
    assert_mean(draw(models.funnel)[:, 0].square(), 9.0)
    # Narrow, so that var(x) = exp(scale²/2) has a standard error that can be trusted.
    assert_mean(draw(models.make_funnel(3, scale=0.5))[:, 1:].square(), math.exp(0.5**2 / 2))
    z = draw(models.banana)
    assert_mean(z, 0.0)
    assert_mean(z.square(), torch.tensor([100.0, 1 + 2 * 0.03**2 * 1e4]).double())
