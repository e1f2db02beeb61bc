"""What columns of data look like: a robust centre and spread, cells far out, values that repeat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Spike", "far_out", "robust_moments", "spike_of"]

FAR = 30.0
"""Robust sds beyond which a cell is far out: 1 000 rows of a lognormal reach some 20, and of
Student's t with 3 degrees of freedom some 15."""
RARE = 0.02
"""The most rows of a column that can be outliers: 1.4 % of a Cauchy distribution are far out; a
larger share is a cluster of its own."""
IQR, MAD = 1.349, 0.6745
"""Interquartile range and median absolute deviation of the standard normal."""

OFTEN, COUNT = 0.02, 5
"""A value that a share and a number of rows have in common is a spike."""
DISTINCT, EACH = 200, 10
"""So are a few distinct values that this many rows or more have each, on average."""


@dataclass(frozen=True)
class Spike:
    """A value that many rows of a column share.

    Attributes:
        value: the commonest.
        share: of the rows that have it.
        distinct: how many values there are in all.
    """

    value: float
    share: float
    distinct: int


def robust_moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Median and robust sd (d) of the columns of x (n, d), on the device of x.

    The robust sd is the interquartile range / 1.349; where half of a column or more is one value,
    the median distance of the other rows from it / 0.6745; and 0 for a constant.
    """
    shares = None if weights is None else weights.cpu().numpy()
    found = [_centre_and_spread(column, shares) for column in x.cpu().numpy().T]
    centre, spread = (x.new_tensor([pair[i] for pair in found]) for i in (0, 1))
    return centre, spread


def far_out(x: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """How many robust sds the cells of x (n, d) lie off the centre; 0 if near, or not rare."""
    off = (x - centre).abs() / torch.where(spread > 0, spread, torch.inf)
    far = off > FAR
    rare = far.sum(0) <= max(1, math.ceil(RARE * len(x)))
    return torch.where(far & rare, off, 0.0)


def spike_of(column: Tensor, weights: Tensor | None = None) -> Spike | None:
    """The commonest value of a column (n), if so many rows share it that a density may grow there.

    Continuous data repeat no value, and rounded ones few: neither counts as a spike.
    """
    found = column.cpu().numpy()
    values, counts = np.unique(found, return_counts=True)
    n, distinct = len(column), len(values)
    most = int(counts.argmax())
    here = found == values[most]
    share = float(here.mean() if weights is None else np.average(here, weights=weights.cpu()))
    repeats = share >= OFTEN and int(counts[most]) >= COUNT
    if not repeats and not (distinct <= DISTINCT and n >= EACH * distinct):
        return None
    return Spike(float(values[most]), share, distinct)


def _centre_and_spread(column: np.ndarray, shares: np.ndarray | None) -> tuple[float, float]:
    lower, centre, upper = _quantiles(column, shares, (0.25, 0.5, 0.75))
    if upper > lower:
        return centre, (upper - lower) / IQR
    off = column != centre
    if not off.any():
        return centre, 0.0
    others = None if shares is None else shares[off]
    (distance,) = _quantiles(np.abs(column[off] - centre), others, (0.5,))
    return centre, distance / MAD


def _quantiles(
    values: np.ndarray, shares: np.ndarray | None, levels: tuple[float, ...]
) -> tuple[float, ...]:
    """Quantiles of weighted numbers, linear between the middles of their shares."""
    if shares is None:
        return tuple(np.quantile(values, levels, method="hazen").tolist())
    order = np.argsort(values, kind="stable")
    values, shares = values[order], shares[order]
    middles = (np.cumsum(shares) - shares / 2) / shares.sum()
    return tuple(np.interp(levels, middles, values).tolist())
