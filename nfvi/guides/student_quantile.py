"""Quantiles of Student's t as a smooth function of those of the normal distribution."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["student_quantile"]

# Of points up to beyond the normal quantile of the least float64 above 0. SciPy has the same
# numbers to 5e-8 of their size, for df from 1 to 10⁶, and takes longer to import.
SPACING = 1 / 32
NODES = 39 * 32
STEPS = 4
"""Of the Runge-Kutta rule from one point to the next."""
LOG_2 = math.log(2)


def student_quantile(u: Tensor, df: float) -> Tensor:
    """The quantile function of Student's t at u within (0, 1), entry by entry.

    With w the normal quantile of u, y = asinh t solves

        dy/dw = φ(w) / (f(t) √(1 + t²)),   y(0) = 0,

    where φ is the normal density and f that of t. It is solved once for each df, in 20 ms, and
    interpolated by cubics that have its values and its derivatives.

    Args:
        u: of any shape.
        df: degrees of freedom, at least 1.
    """
    w = torch.special.ndtri(u)
    table = _on(df, u.dtype, u.device)
    at = w.abs() / SPACING
    k = at.clamp(max=NODES - 1).long()
    s = at - k
    rest = 1 - s
    start = rest**2 * ((1 + 2 * s) * table.y[k] + s * table.slope[k])
    end = s**2 * ((1 + 2 * rest) * table.y[k + 1] - rest * table.slope[k + 1])
    quantile: Tensor = (start + end).sinh().copysign(w)
    return quantile


class _Table(NamedTuple):
    """y = asinh t at each point, and its derivative by the number of the point."""

    y: Tensor
    slope: Tensor


@cache
def _on(df: float, dtype: torch.dtype, device: torch.device) -> _Table:
    """The table where it is wanted, copied once: a graph that is captured cannot copy."""
    return _Table(*(x.to(device=device, dtype=dtype) for x in _table(df)))


@cache
def _table(df: float) -> _Table:
    half = (df + 1) / 2
    # log φ(0) − log f(0): all else of the two log-densities is 0 there.
    constant = math.lgamma(df / 2) - math.lgamma(half) + 0.5 * math.log(df / 2)

    def slope(w: float, y: float) -> float:
        away = math.log1p(-math.exp(-2 * y)) if y > 0 else -math.inf
        squared = 2 * (y - LOG_2 + away) - math.log(df)  # log (t² / df), of a t out of range too
        widened = max(squared, 0.0) + math.log1p(math.exp(-abs(squared)))
        cosh = y - LOG_2 + math.log1p(math.exp(-2 * y))
        return math.exp(constant - 0.5 * w * w + half * widened - cosh)

    # From the far end, where a power law is near enough: errors die out on the way to the middle,
    # and would grow on the way from there.
    step = -SPACING / STEPS
    end = (NODES * SPACING) ** 2 / df
    y = LOG_2 + 0.5 * (math.log(df) + end + math.log1p(-math.exp(-end)))
    values = [y]
    for k in range(NODES * STEPS, 0, -1):
        w = -k * step
        first = slope(w, y)
        second = slope(w + step / 2, y + step / 2 * first)
        third = slope(w + step / 2, y + step / 2 * second)
        last = slope(w + step, y + step * third)
        y += step / 6 * (first + 2 * second + 2 * third + last)
        if k % STEPS == 1:
            values.append(y)
    values = [0.0, *values[-2::-1]]
    slopes = [SPACING * slope(k * SPACING, y) for k, y in enumerate(values)]
    return _Table(*(torch.tensor(x, dtype=torch.float64) for x in (values, slopes)))
