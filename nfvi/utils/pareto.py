"""Pareto smoothing of importance weights: a generalised Pareto in place of the largest of them."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["psislw", "tail_length"]

PRIOR_DRAWS = 10
"""How many draws of the tail the prior of its shape counts for, whose mean is 1/2."""


def tail_length(n: int) -> int:
    """How many of n weights Pareto smoothing takes as the tail: ⌊3√n⌋, or n/5 up to n = 225."""
    return math.floor(3 * n**0.5) if n > 225 else n // 5


def psislw(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log weights and the k-hat of their upper tail.

    The numbers are those of ArviZ 0.x. ArviZ 1.x fits no tail of five, nor one whose lowest quarter
    is equal, so that k-hat would depend on the installed version.

    Args:
        log_weights: finite log weights (n), n >= 25, of which those in the tail differ.

    Returns:
        (n), normalised to sum to 1 when exponentiated, and k-hat; nan where the fit fails.

    Reference:
        Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, 2024.
    """
    smoothed = log_weights - log_weights.max()
    order = np.argsort(smoothed)
    tail = order[-tail_length(len(order)) :]
    cutoff = np.exp(smoothed[order[-len(tail) - 1]])
    khat, scale = _fit(np.exp(smoothed[tail]) - cutoff)
    smoothed[tail] = np.log(_quantiles(len(tail), khat, scale) + cutoff).clip(max=0)
    smoothed -= _log_sum_exp(smoothed)
    return smoothed, khat


def _fit(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto from its draws (n) in rising order, from 0 on.

    The shape is the posterior mean under a weak prior: for a profile likelihood in θ = −k/σ
    weighted on a grid, and drawn towards 1/2.

    Reference:
        Zhang and Stephens, A new and efficient estimation method for the generalized Pareto
        distribution, 2009.
    """
    n = len(excess)
    points = 30 + int(n**0.5)
    grid = 1 - np.sqrt(points / (np.arange(1, points + 1, dtype=float) - 0.5))
    grid /= 3 * excess[int(n / 4 + 0.5) - 1]
    grid += 1 / excess[-1]
    shapes = np.log1p(-grid[:, None] * excess).mean(1)
    profile = n * (np.log(-grid / shapes) - shapes - 1)
    weights = np.exp(profile - _log_sum_exp(profile))
    kept = weights >= 10 * np.finfo(float).eps
    weights = weights[kept] / weights[kept].sum()
    theta = (grid[kept] * weights).sum()
    shape = np.log1p(-theta * excess).mean()
    scale = -shape / theta
    return float((n * shape + PRIOR_DRAWS * 0.5) / (n + PRIOR_DRAWS)), float(scale)


def _quantiles(n: int, shape: float, scale: float) -> np.ndarray:
    """The middle quantiles (n) of a generalised Pareto from 0 on."""
    tails = np.log1p(-np.arange(0.5, n) / n)
    return scale * np.expm1(-shape * tails) / shape if shape else -scale * tails


def _log_sum_exp(x: np.ndarray) -> float:
    """log Σ exp(x), with the largest terms apart, so that those much smaller still count."""
    top = x.max()
    largest = x == top
    rest = np.where(largest, 0.0, np.exp(x - top)).sum()
    return float(np.log1p(rest / largest.sum()) + np.log(largest.sum()) + top)
