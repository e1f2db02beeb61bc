"""The test of uniform ranks: its p-values are exact, and its band is that of the test."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest

from nfvi.assess.uniformity import band, bin_band, holm, ranks_below, uniformity_p_values


def uniform_ranks(n: int, draws: int, scalars: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, draws, (n, scalars), endpoint=True)


def test_counts_of_ranks_below():
    ranks = np.array([[0, 2], [1, 2], [2, 0]])
    assert ranks_below(ranks, 2).tolist() == [[1, 2], [1, 1]]


@pytest.mark.parametrize(("n", "draws"), [(4, 2), (5, 3), (3, 9)])
def test_p_values_are_exact(n, draws):
    """All (L + 1)^N outcomes are alike likely: P(p <= any value that p takes) is that value."""
    outcomes = np.array(list(product(range(draws + 1), repeat=n))).T
    found = uniformity_p_values(outcomes, draws)
    for value in np.unique(found.round(9)):
        assert (found <= value + 1e-6).mean() == pytest.approx(value, abs=1e-6)


def test_one_draw_is_a_fair_coin():
    """With L = 1, N = 6: the two-sided binomial test; 1 of 6 has 2 (1 + 6)/64."""
    ranks = np.array([[0, 0, 0], [1, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 1]])
    assert uniformity_p_values(ranks, 1) == pytest.approx([14 / 64, 2 / 64, 1.0], abs=1e-12)


def test_many_ranks_keep_their_digits():
    """With L = 1, N = 2 000: twice the tail of a Binomial(N, ½), summed in whole numbers."""
    n, below = 2000, (900, 990, 1010)
    ranks = np.stack([np.arange(n) >= count for count in below], 1).astype(int)
    tails = [sum(comb(n, k) for k in range(min(c, n - c) + 1)) for c in below]
    exact = [2 * tail / 2**n for tail in tails]
    assert uniformity_p_values(ranks, 1) == pytest.approx(exact, abs=2e-12)


def test_false_alarms_are_as_rare_as_the_level_says():
    """Of 2 000 columns, those with p <= level: within 4.5 sds of it, a chance of 1e-5."""
    found = uniformity_p_values(uniform_ranks(50, 19, 2000), 19)
    for level in (0.01, 0.05, 0.2):
        assert abs((found <= level).mean() - level) < 4.5 * (level / 2000) ** 0.5


@pytest.mark.parametrize("level", [0.2, 0.01])
def test_the_band_is_where_the_p_value_is_over_the_level(level):
    ranks = uniform_ranks(50, 19, 1000)
    low, high = band(50, 19, level)
    counts = ranks_below(ranks, 19)
    inside = ((counts >= low) & (counts <= high)).all(1)
    assert np.array_equal(inside, uniformity_p_values(ranks, 19) > level)
    # It is the widest such: nearly all of the level is used.
    assert level / 2 < 1 - inside.mean() < 1.5 * level


def test_crowded_ranks_are_found():
    u = np.random.default_rng(1).normal(size=(200, 3)) * [0.7, 1.4, 1.0] + [0, 0, 0.5]
    from_normal = np.vectorize(lambda x: int((np.random.default_rng(2).normal(size=99) < x).sum()))
    assert (uniformity_p_values(from_normal(u), 99) < 1e-3).all()


def test_band_of_single_bins():
    """Binomial(20, ½): P(X <= 3) = 0.0013 and P(X <= 4) = 0.0059, so 1 % leaves 4 to 16."""
    low, high = bin_band(20, np.array([0.5]), 0.01)
    assert (low.item(), high.item()) == (4, 16)


def test_holm():
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, and never falling."""
    found = holm(np.array([0.03, 0.5, 0.01, 0.02]))
    assert found == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm(np.array([0.4, 0.9])) == pytest.approx([0.8, 0.9])
