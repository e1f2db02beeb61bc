"""The interval of highest density is the narrowest, as in ArviZ, and takes weights."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from nfvi.utils import hdi


def narrowest(x: np.ndarray, weights: np.ndarray) -> float:
    """The width of the narrowest interval between two draws with more than 94 % of the weight."""
    order = np.argsort(x)
    x, share = x[order], weights[order] / weights.sum()
    places = ((i, j) for i in range(len(x)) for j in range(i, len(x)))
    return float(min(x[j] - x[i] for i, j in places if share[i : j + 1].sum() > 0.94 + 1e-12))


@pytest.mark.parametrize("n", [1, 2, 3, 17, 100, 1_000])
def test_it_is_that_of_arviz(n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        az = pytest.importorskip("arviz")
    x = np.random.default_rng(n).lognormal(size=n)
    if n < 3:
        assert hdi(x) == (x.min(), x.max())
        return
    options = {"hdi_prob": 0.94} if az.__version__.startswith("0.") else {"prob": 0.94}
    assert hdi(x) == pytest.approx(az.hdi(x, **options).tolist(), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_weights_it_is_the_narrowest(seed):
    rng = np.random.default_rng(seed)
    x, weights = rng.gamma(2.0, size=60), rng.exponential(size=60)
    low, high = hdi(x, weights)
    inside = (x >= low) & (x <= high)
    assert weights[inside].sum() > 0.94 * weights.sum()
    assert high - low == pytest.approx(narrowest(x, weights), rel=1e-12)
    low, high = hdi(x)
    assert high - low == pytest.approx(narrowest(x, np.ones(60)), rel=1e-12)


def test_of_a_known_distribution():
    """Of an exponential it is from 0 to −log 0.06, the sd of which end is 2 % at 40 000 draws."""
    rng = np.random.default_rng(0)
    low, high = hdi(rng.exponential(size=40_000))
    assert low < 1e-3 and high == pytest.approx(-math.log(0.06), rel=0.08)
    x = 4 * rng.random(40_000) ** 2
    low, high = hdi(x, np.exp(-x) * np.sqrt(x))  # the density of x is 1/√x
    assert low < 1e-3 and high == pytest.approx(-math.log(0.06 + 0.94 * math.exp(-4)), rel=0.08)


def test_numbers_that_are_none():
    assert all(map(math.isnan, hdi(np.array([1.0, math.nan]))))
    assert hdi(np.array([0.0] * 97 + [math.inf] * 3)) == (0.0, 0.0)
