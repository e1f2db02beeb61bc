"""Running means of noisy records."""

from __future__ import annotations

import numpy as np

from nfvi.plots.style import Array

__all__ = ["band", "running", "width_of"]


def width_of(smooth: int | None, steps: int) -> int:
    """The steps of a running mean: 1/50 of all by default.

    Raises:
        ValueError: smooth is below 1.
    """
    smooth = max(1, steps // 50) if smooth is None else smooth
    if smooth < 1:
        raise ValueError(f"smooth must be at least 1, got {smooth}")
    return smooth


def running(values: Array, width: int) -> tuple[Array, Array]:
    """Mean and sd over the last ``width`` rows of values (steps, R), each (steps, R).

    Values that are not finite are left out; a window of nothing else gives nan. The first windows
    are shorter.
    """
    finite = np.isfinite(values)
    # Around a centre, or the squares of a loss of 1e8 would leave nothing of an sd of 1.
    centre = np.nanmedian(np.where(finite, values, np.nan), axis=0) if finite.any() else 0.0
    x = np.where(finite, values - centre, 0.0)

    def window(terms: Array) -> Array:
        total = np.cumsum(terms, axis=0)
        total[width:] = total[width:] - total[:-width]
        return total

    n = window(finite.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n > 0, window(x) / n, np.nan)
        square = np.where(n > 0, window(x * x) / n, np.nan)
    return mean + centre, np.sqrt(np.clip(square - mean * mean, 0.0, None))


def band(values: Array, smooth: int, *, log: bool) -> tuple[Array, Array, Array]:
    """The running mean and one sd above and below it, each (steps, R)."""
    if not log:
        mean, sd = running(values, smooth)
        return mean, mean + sd, mean - sd
    with np.errstate(divide="ignore"):
        mean, sd = running(np.log(values), smooth)
    return np.exp(mean), np.exp(mean + sd), np.exp(mean - sd)
