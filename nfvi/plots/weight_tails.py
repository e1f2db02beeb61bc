"""Importance weights by their rank, and how heavy their tail is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from nfvi.plots.style import COLORS, Array, array, legend_below, new_axes, tidy
from nfvi.utils import KHAT_LIMIT, tail_length

__all__ = ["weights"]

LEAST = 25
"""Draws with a weight of which there is a tail to draw."""


class WeightsLike(Protocol):
    """n draws with their log-densities and weights, such as :class:`nfvi.fit.WeightedDraws`."""

    @property
    def log_p(self) -> Tensor: ...
    @property
    def log_q(self) -> Tensor: ...
    @property
    def log_weights(self) -> Tensor: ...
    @property
    def khat(self) -> float: ...


def weights(draws: WeightsLike, *, ax: Axes | None = None) -> Axes:
    """The tail of the importance weights, from the largest on, beside what k-hat says of it.

    The largest weights are drawn by how far they are over the tail's lower end, on logarithmic
    scales, with the Pareto distribution that was fitted to them. The broken line is one of shape
    0.7 with the same median: where the largest weights are above it, weighted results are not
    reliable.

    Args:
        draws: what :meth:`nfvi.Fit.weighted_draws` returns.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: fewer than 25 draws have a weight.

    Reference:
        Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, 2024.
    """
    raw = _by_rank(array(draws.log_p) - array(draws.log_q))
    smoothed = _by_rank(array(draws.log_weights))
    if min(len(raw), len(smoothed)) < LEAST:
        raise ValueError(f"{len(smoothed)} draws have a weight, and {LEAST} are the least to draw")
    tail = tail_length(len(raw))
    rank = np.arange(1.0, tail + 1)
    excess, end = raw[:tail] - raw[tail], raw[tail]
    ax = tidy(new_axes(ax))
    ax.plot(rank, _positive(excess), ".", color=COLORS["left"], ms=5, label="weights")
    if np.isfinite(draws.khat):
        fitted = _positive(smoothed[:tail] - end)
        ax.plot(rank, fitted, color=COLORS["right"], lw=1.6, label=f"k = {draws.khat:.2f}, fitted")
        limit = _pareto(rank, float(np.median(excess)))
        dashed: dict[str, Any] = {"lw": 1.2, "ls": "--", "label": f"k = {KHAT_LIMIT}, the limit"}
        ax.plot(rank, limit, color=COLORS["exact"], **dashed)
    ax.set(xscale="log", yscale="log", xlim=(0.9, tail), xlabel="rank of the draw")
    ax.set(ylabel=f"weight − {end:.3g}, over the mean weight", title=_title(draws.khat))
    legend_below(ax, 3)
    return ax


def _pareto(rank: Array, median: float) -> Array:
    """Quantiles of a generalised Pareto distribution of shape 0.7 with a given median."""
    share = (rank - 0.5) / len(rank)
    quantiles: Array = median * (share**-KHAT_LIMIT - 1) / (0.5**-KHAT_LIMIT - 1)
    return quantiles


def _positive(excess: Array) -> Array:
    """What has a place on a logarithmic scale; NaN elsewhere."""
    return np.where(excess > 0, excess, np.nan)


def _by_rank(log_weights: Array) -> Array:
    """Weights over their mean, from log weights of any constant; those of 0 are left out."""
    finite = np.sort(log_weights[np.isfinite(log_weights)])[::-1]
    if not len(finite):
        return finite
    weights = np.exp(finite - finite[0])
    result: Array = weights / weights.sum() * len(log_weights)
    return result


def _title(khat: float) -> str:
    if khat == -np.inf:
        return "importance weights: the largest are equal, there is no tail"
    if khat == np.inf:
        return "importance weights: a few draws carry all the weight"
    return f"importance weights, k-hat {khat:.2f}"
