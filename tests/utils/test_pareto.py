"""Pareto smoothing against ArviZ, of whichever line is installed, and against a known shape."""

from __future__ import annotations

import math
import warnings
from importlib import metadata

import numpy as np
import pytest
from arviz_stats.base import array_stats

from nfvi.utils.pareto import psislw, tail_length


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def quantiles(n: int, shape: float) -> np.ndarray:
    """The log of the middle quantiles (n) of a Pareto of this shape."""
    return -shape * np.log1p(-np.arange(0.5, n) / n)


# Sizes on both sides of where the tail's rule changes, and where 3√n is and is not whole.
@pytest.mark.parametrize("n", [30, 100, 224, 225, 226, 900, 1000, 4097])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_it_is_arviz_s(rng, n, scale):
    log_weights = scale * rng.normal(size=n)
    given = log_weights.copy()
    with np.errstate(over="ignore"):
        smoothed, khat = psislw(log_weights)
        # It takes log-likelihoods: what leave-one-out weighs with is their inverse.
        theirs, their_khat = array_stats.psislw(-log_weights)
    np.testing.assert_allclose(smoothed, theirs, rtol=1e-9, atol=1e-9)
    assert khat == pytest.approx(float(their_khat), rel=1e-9, abs=1e-9)
    assert type(khat) is float
    np.testing.assert_array_equal(log_weights, given)


@pytest.mark.parametrize("n", [25, 29, 30, 226, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_it_is_that_of_arviz_0(rng, n, tied):
    """Which fits a tail of five, and one whose lowest third is equal, as well."""
    if not metadata.version("arviz").startswith("0."):
        pytest.skip("needs ArviZ 0.x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    log_weights = np.sort(rng.normal(size=n))
    tail = tail_length(n)
    if tied:
        log_weights[-tail : -tail + tail // 3] = log_weights[-tail]
    # 0.x rounds 3√(n / reff) up: this reff makes the tails equal.
    reff = 9 * n / (tail - 0.5) ** 2
    theirs, their_khat = arviz.psislw(log_weights, reff=reff)
    smoothed, khat = psislw(log_weights)
    np.testing.assert_allclose(smoothed, theirs, rtol=1e-9, atol=1e-9)
    assert khat == pytest.approx(float(their_khat), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n", [25, 29])
def test_a_tail_of_five_has_the_khat_of_arviz_0(n):
    """Recorded from ArviZ 0.23, as 1.x fits none; the body does not matter to it."""
    assert psislw(quantiles(n, 2.0))[1] == pytest.approx(0.88287542, abs=1e-8)


def test_a_tail_that_begins_with_equal_weights_is_fitted():
    log_weights = quantiles(400, 0.5)
    log_weights[340:360] = log_weights[340]
    smoothed, khat = psislw(log_weights)
    assert math.isfinite(khat) and np.isfinite(smoothed).all()


def test_it_leaves_the_body_and_finds_the_shape(rng):
    """Pareto weights of shape 1/2, whose k-hat scatters by about 0.09 with a tail of 299."""
    log_weights = 0.5 * rng.exponential(size=10_000)
    smoothed, khat = psislw(log_weights)
    assert khat == pytest.approx(0.5, abs=0.3)
    assert np.exp(smoothed).sum() == pytest.approx(1)
    order = np.argsort(log_weights)
    body = order[: -tail_length(10_000)]
    shift = smoothed[body] - log_weights[body]
    np.testing.assert_allclose(shift, shift[0], atol=1e-12)
    assert (np.diff(smoothed[order]) >= 0).all()


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.5])
def test_the_quantiles_of_a_pareto_have_its_shape(shape):
    """Up to the prior, which draws k-hat towards 1/2 as ten draws of the tail would."""
    n = 100_000
    tail = tail_length(n)
    pulled = (tail * shape + 10 * 0.5) / (tail + 10)
    # Quantiles in place of draws leave an error of the order of 1/tail.
    assert psislw(quantiles(n, shape))[1] == pytest.approx(pulled, abs=10 / tail)
