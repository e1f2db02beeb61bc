"""Robust moments, cells far out and spikes, by columns made to have them or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfvi.density.columns import far_out, robust_moments, spike_of

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=3_000)


def column(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x, np.float64)).unsqueeze(1)


def farthest(x: np.ndarray) -> float:
    x = column(x)
    return float(far_out(x, *robust_moments(x)).max())


def spike(x: np.ndarray, weights: np.ndarray | None = None):
    given = None if weights is None else torch.from_numpy(weights)
    return spike_of(column(x)[:, 0], given)


def test_of_a_normal_the_robust_moments_are_mean_and_sd():
    centre, spread = robust_moments(column(5 + 2 * NORMAL))
    # Standard errors of median and interquartile range / 1.349: 1.25 sd / √n and 1.17 sd / √n.
    assert float(centre) == pytest.approx(5, abs=4 * 1.25 * 2 / 3_000**0.5)
    assert float(spread) == pytest.approx(2, abs=4 * 1.17 * 2 / 3_000**0.5)


def test_weights_are_numbers_of_rows():
    """Up to the spacing of the rows: quantiles go on a line between the middles of shares."""
    x, counts = NORMAL[:500], RNG.integers(1, 4, 500)
    weighted = robust_moments(column(x), torch.from_numpy(counts.astype(float)))
    repeated = robust_moments(column(np.repeat(x, counts)))
    equal = robust_moments(column(x), torch.full((500,), 3.0, dtype=torch.float64))
    plain = robust_moments(column(x))
    for a, b, tolerance in [(weighted, repeated, 0.02), (equal, plain, 1e-12)]:
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("x", "spread"),
    [
        (np.zeros(9), 0.0),
        (np.r_[np.zeros(90), np.ones(10)], 1 / 0.6745),  # no quartiles: what the others are off
        (np.r_[np.zeros(80), -np.ones(8), np.full(12, 3.0)], 3 / 0.6745),
        (np.array([0.0, 1.0]), 1 / 1.349),
    ],
)
def test_columns_of_few_values_have_a_spread(x, spread):
    assert float(robust_moments(column(x))[1]) == pytest.approx(spread)


@pytest.mark.parametrize(
    "x",
    [
        NORMAL,
        RNG.uniform(size=3_000),
        RNG.exponential(size=3_000),
        RNG.lognormal(size=500),
        RNG.standard_t(3, size=1_000),
        RNG.poisson(0.05, size=3_000),
        RNG.integers(0, 2, size=3_000),
        np.r_[NORMAL, 1_000 + NORMAL[:300]],  # a cluster of its own
        np.array([0.0, 1e6]),
        np.zeros(5),
    ],
)
def test_no_cell_of_these_is_far_out(x):
    assert farthest(x) == 0


@pytest.mark.parametrize(
    ("x", "off"),
    [
        (np.r_[NORMAL, 1e6], 1e6),
        (np.r_[NORMAL, -999.0], 999),
        (np.r_[NORMAL[:8], 1e4], 1e4),
        (np.r_[np.zeros(2_700), NORMAL[:300], 500.0], 500),  # nine tenths are zero
        (np.r_[NORMAL, np.full(20, 80.0)], 80),
    ],
)
def test_these_are(x, off):
    assert farthest(x) == pytest.approx(off, rel=0.5 if len(x) < 20 else 0.15)


@pytest.mark.parametrize(
    ("x", "value", "share", "distinct"),
    [
        (np.r_[np.zeros(600), np.ones(400)], 0, 0.6, 2),
        (np.r_[NORMAL, np.full(1_000, -9.0)], -9, 0.25, 3_001),
        (np.arange(4_000) % 100, 0, 0.01, 100),  # ages, say: no value is common
    ],
)
def test_spikes(x, value, share, distinct):
    found = spike(x)
    assert (found.value, found.distinct) == (value, distinct)
    assert found.share == pytest.approx(share)


def test_the_share_of_a_spike_is_that_of_the_weights():
    x, weights = np.repeat([0.0, 1.0], [60, 40]), np.repeat([1.0, 1.5], [60, 40])
    assert spike(x, weights).share == pytest.approx(0.5)


@pytest.mark.parametrize("n", [20, 60, 300, 3_000, 100_000])
@pytest.mark.parametrize("digits", [3, 4, 6, 15])
def test_rounded_numbers_are_no_spikes(n, digits):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for x in (rng.normal(size=n), rng.exponential(size=n), rng.uniform(size=n)):
            assert spike(x.round(digits)) is None
            assert spike(x.astype(np.float32)) is None
    assert spike(np.arange(n)) is None
