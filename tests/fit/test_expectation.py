"""Expectations under the target: right means, standard errors that are, and plain errors."""

from __future__ import annotations

import math

import pytest
import torch

from models import make_gaussian
from nfvi import Fit, FitError, LogDensity
from nfvi.fit.approximation import Approximation
from nfvi.guides.guide import Guide

SETTINGS = {"seed": 0, "target": "normal", "named": False}


def approximation(target=None, *, scale: float = 1.3) -> Approximation:
    """A normal guide in two dimensions with too large an sd, so that the weights are bounded."""
    guide = Guide("scale", 2, dtype=torch.float64)
    with torch.no_grad():
        guide.flows[0].rho.fill_(math.log(math.expm1(scale)))
    return Approximation(guide, target or normal(), SETTINGS)


def normal() -> LogDensity:
    return LogDensity(lambda z: -0.5 * z.square().sum(-1), 2, name="normal")


def test_the_mean_is_that_of_the_target_and_the_error_its_spread():
    """E[z²] = 1 where the guide's is 1.69, and its error is the spread over 300 repetitions.

    The mean of 600 estimates lies within 4.5 of its own errors; a standard deviation of 300
    numbers is itself known to 4 %, and the error that is reported to about 2 %.
    """
    q = approximation()
    found = [q.expectation(lambda z: z.square(), 500, seed=seed) for seed in range(300)]
    means, errors = torch.stack([f.mean for f in found]), torch.stack([f.se for f in found])
    assert means.shape == (300, 2)
    spread = means.std(0)
    assert ((means.mean(0) - 1).abs() < 4.5 * spread / 300**0.5).all()
    torch.testing.assert_close(errors.mean(0), spread, rtol=0.2, atol=0)


def test_any_shape_of_value_will_do():
    q = approximation(make_gaussian(2, condition=2.0, seed=0))
    exact = q.target.sample(100_000, generator=torch.Generator().manual_seed(0)).double()
    found = q.expectation(lambda z: z.unsqueeze(-1) * z.unsqueeze(-2), 20_000, seed=1)
    assert found.mean.shape == found.se.shape == (2, 2)
    expected = exact.T @ exact / len(exact)
    assert ((found.mean - expected).abs() < 5 * found.se + 0.02).all()
    assert found.khat < 0.7 and 1_000 < found.ess < 20_000
    one = q.expectation(lambda z: (z[:, 0] > 0).double(), 20_000, seed=1)
    share = (exact[:, 0] > 0).double().mean()
    assert one.mean.shape == () and abs(one.mean - share) < 5 * one.se + 0.003


def test_draws_that_the_target_excludes_do_not_count():
    half = LogDensity(
        lambda z: torch.where(z[..., 0] > 0, -0.5 * z.square().sum(-1), -torch.inf), 2, name="half"
    )
    q = Approximation(approximation().guide, half, SETTINGS)
    found = q.expectation(lambda z: z[:, 0].sqrt(), 20_000, seed=2)  # NaN on the other half
    exact = 2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)
    assert abs(found.mean - exact) < 5 * found.se


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z.sum(), r"one value for each of the 100 draws, \(n, ...\); got \(\)"),
        (lambda z: 3.0, "got float"),
        (lambda z: z / 0, "function returned NaN or inf"),
    ],
)
def test_a_function_that_will_not_do_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        approximation().expectation(function, 100)


def test_something_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="function must take the draws"):
        approximation().expectation(3)


def test_it_needs_the_target():
    q = Approximation(approximation().guide, None, SETTINGS)
    with pytest.raises(FitError, match="without its target"):
        q.expectation(lambda z: z)
    assert hasattr(Fit, "expectation")
