"""Whether ranks are uniform: the greatest departure of their ECDF, with its exact p-value."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "band", "bin_band", "holm", "ranks_below", "uniformity_p_values"]

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
# Equal tail probabilities that differ by rounding are ties.
TIE = 1e-9
# Of the chance of a count: far below the rounding of a p-value, and most counts are below it.
NEGLIGIBLE = 1e-20


def ranks_below(ranks: Counts, draws: int) -> Counts:
    """How many ranks are below 1, ..., L: (scalars, L) from ranks (simulations, scalars)."""
    values = np.sort(ranks, axis=0)
    points = np.arange(1, draws + 1)
    return np.stack([np.searchsorted(column, points) for column in values.T])


def uniformity_p_values(ranks: Counts, draws: int) -> Array:
    """P-values of the hypothesis that ranks are uniform on 0, ..., L: (scalars).

    Of N ranks, the number below k is Binomial(N, k / (L + 1)) for each k = 1, ..., L. The statistic
    is the smallest of its tail probabilities over all k, and the p-value the chance that uniform
    ranks come to one as small. It is exact: the counts are a Markov chain in k, and the probability
    that it stays in a band is a sum over its paths.

    Args:
        ranks: (simulations, scalars), whole numbers from 0 to L.
        draws: L.

    Reference:
        Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications
        in goodness-of-fit evaluation and multiple sample comparison, 2022.
    """
    n = len(ranks)
    counts = ranks_below(np.asarray(ranks), draws)
    tails = _tails(n, draws)
    smallest = tails[np.arange(draws), counts].min(1)
    inside = tails[None] > smallest[:, None, None] * (1 + TIE)
    return np.clip(1 - _stays_inside(inside), 0, 1)


@cache
def band(simulations: int, draws: int, level: float) -> tuple[Counts, Counts]:
    """The least and the most ranks below 1, ..., L that the test accepts: each (L).

    Uniform ranks leave this band somewhere with a chance of at most ``level``, and of nearly that.

    Args:
        simulations: N.
        draws: L.
        level: the chance of a false alarm, between 0 and 1.
    """
    tails = _tails(simulations, draws)
    low, high = np.log(level) - np.log(4 * draws), np.log(level) + 1e-6
    for _ in range(40):  # the chance of leaving rises with the limit
        middle = (low + high) / 2
        leaves = 1 - _stays_inside((tails > np.exp(middle))[None])[0]
        low, high = (middle, high) if leaves <= level else (low, middle)
    accepted = tails > np.exp(low)
    return accepted.argmax(1), simulations - accepted[:, ::-1].argmax(1)


def bin_band(simulations: int, shares: Array, level: float) -> tuple[Counts, Counts]:
    """The least and the most of N ranks in bins of given shares, each bin alone: (bins), (bins).

    The counts are Binomial(N, share), and outside with a chance of ``level`` at most.
    """
    from scipy.stats import binom  # here and below, since it takes a second to import

    low, high = binom.interval(1 - level, simulations, shares)
    return low.astype(np.int64), high.astype(np.int64)


def holm(p_values: Array) -> Array:
    """P-values adjusted for their number, valid together whatever their dependence.

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


@cache
def _tails(n: int, draws: int) -> Array:
    """Twice the smaller tail probability of each count of ranks below k: (L, N + 1)."""
    from scipy.stats import binom

    count, share = np.arange(n + 1), np.arange(1, draws + 1)[:, None] / (draws + 1)
    below, above = binom.cdf(count, n, share), binom.sf(count - 1, n, share)
    tails: Array = np.minimum(2 * np.minimum(below, above), 1)
    return tails


def _stays_inside(inside: NDArray[np.bool_]) -> Array:
    """The chance that all counts are in a band (bands, L, N + 1): (bands).

    Numbers of ranks of one value are multinomial: Poisson variables of mean N / (L + 1), given
    that they add up to N. The increments of the counts are then alike and independent.
    """
    from scipy.stats import poisson

    bands, draws, width = inside.shape
    n = width - 1
    jump = poisson.pmf(np.arange(width), n / (draws + 1))
    jumps = [(int(i), jump[i]) for i in (jump > NEGLIGIBLE).nonzero()[0]]
    mass = np.zeros((bands, width))
    mass[:, 0] = 1
    for k in range(draws):
        moved = np.zeros_like(mass)
        for i, chance in jumps:
            moved[:, i:] += mass[:, : width - i] * chance
        mass = moved * inside[:, k]
    chances: Array = mass @ jump[::-1] / poisson.pmf(n, n)
    return chances
