"""The interval of highest density of draws, as ArviZ has it in its summaries."""

from __future__ import annotations

import numpy as np

__all__ = ["HDI", "hdi"]

MASS = 0.94
ROUNDING = 1e-12
"""Of sums of weights: 94 of 100 equal ones are no more than 94 %."""
HDI = ("hdi_3%", "hdi_97%")
"""The names of its ends: those of ArviZ 0.x, whatever ArviZ is installed."""


def hdi(x: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """The narrowest interval that holds 94 % of the draws of a scalar.

    Its ends are draws x_i ≤ x_j, with more than 94 % of the weight from x_i up to x_j, both
    included. Without weights it is that of ``arviz.hdi``. Of several modes it is one interval, with
    what lies between them.

    Args:
        x: (n), at least one draw.
        weights: (n), at least 0; default all alike.

    Returns:
        Both ends; nan where a draw is.

    Reference:
        Hyndman, Computing and graphing highest density regions, 1996.
    """
    if np.isnan(x).any():
        return float("nan"), float("nan")
    order = np.argsort(x, kind="stable")
    x = x[order]
    if weights is None:
        last = np.arange(int(MASS * len(x)), len(x))
        first = np.arange(len(last))
    else:
        share = weights[order] / weights.sum()
        up_to = np.cumsum(share)
        last = np.searchsorted(up_to, up_to - share + MASS + ROUNDING, side="right")
        last = last[last < len(x)]
        first = np.arange(len(last))
    with np.errstate(invalid="ignore"):  # of infinite draws
        width = x[last] - x[first]
    best = int(np.argmin(np.where(np.isnan(width), np.inf, width)))
    return float(x[first[best]]), float(x[last[best]])
