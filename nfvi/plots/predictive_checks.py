"""Data beside what a model predicts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from nfvi.plots.style import COLORS, AnyFigure, Array, array, legend_below, listed, new_figure, tidy

__all__ = ["predictive"]

ONE_BY_ONE = 40
"""Observations that are drawn each by itself; more share a histogram."""
MOST_SITES = 4
BINS = 40
TAIL = 0.002
BAND, MIDDLE = (0.05, 0.95), (0.25, 0.75)


@dataclass(frozen=True)
class _Site:
    """An observed site: its data (k), without what is missing, and what is predicted (n, k)."""

    name: str
    data: Array
    draws: Array


def predictive(
    observed: Mapping[str, Any],
    predicted: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """A posterior predictive check: data beside data that are drawn at draws of a fit.

    Up to 40 observations are drawn each by itself, with the middle half and the middle 90 % of what
    is predicted there. More are a histogram, with the middle 90 % of the histograms of the
    predicted data sets. A model that fits has about nine observations, or bars, in ten within.

    Args:
        observed: site -> data, such as ``fit.target.observed_data``.
        predicted: site -> (n, \\*shape), such as ``fit.predict(400)``.
        names: which sites; default those that are in both, four at most.
        fig: where to draw; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: no site is in both, or the shapes of one differ; or they are not by site.
    """
    for side, given in (("observed", observed), ("predicted", predicted)):
        if not isinstance(given, Mapping):
            raise ValueError(
                f"{side} must be a dict of sites, such as {{'y': ...}}, got {type(given).__name__}"
            )
    shared = [name for name in observed if name in predicted]
    if names is not None and (unknown := [name for name in names if name not in shared]):
        raise ValueError(f"no data of {listed(unknown)}; there are {listed(shared) or 'none'}")
    chosen = shared[:MOST_SITES] if names is None else list(names)
    if not chosen:
        raise ValueError(
            f"no site is both observed ({listed(list(observed)) or 'none'}) and predicted"
            f" ({listed(list(predicted)) or 'none'})"
        )
    sites = [_site(name, observed[name], predicted[name]) for name in chosen]
    fig = new_figure(fig, (8.0, 0.4 + 3.7 * len(sites)))
    for ax, site in zip(fig.subplots(len(sites), squeeze=False)[:, 0], sites, strict=True):
        (_one_by_one if len(site.data) <= ONE_BY_ONE else _together)(tidy(ax), site)
        legend_below(ax, 3)
    left_out = [name for name in shared if name not in chosen]
    also = f"; left out: {listed(left_out, 6)}" if left_out else ""
    fig.suptitle(f"data and {len(sites[0].draws):,} predicted data sets{also}", fontsize=11)
    return fig


def _site(name: str, data: Any, draws: Any) -> _Site:
    values, drawn = _numbers(data), _numbers(draws)
    if drawn.ndim != values.ndim + 1 or drawn.shape[1:] != values.shape or not len(drawn):
        raise ValueError(
            f"{name!r} has data of shape {values.shape} and predictions of shape {drawn.shape};"
            f" (n, *{values.shape}) is needed"
        )
    values, drawn = values.ravel(), drawn.reshape(len(drawn), -1)
    there = np.isfinite(values)
    if not there.any():
        raise ValueError(f"{name!r} has no data")
    return _Site(name, values[there], drawn[:, there])


def _numbers(values: Any) -> Array:
    return array(values) if isinstance(values, torch.Tensor) else np.asarray(values, np.float64)


def _one_by_one(ax: Axes, site: _Site) -> None:
    places = np.arange(len(site.data))
    (low, high), (lower, upper) = (np.nanquantile(site.draws, q, axis=0) for q in (BAND, MIDDLE))
    ax.vlines(places, low, high, color=COLORS["left"], lw=1.6, alpha=0.5, label="90 % predicted")
    ax.vlines(places, lower, upper, color=COLORS["left"], lw=5.0, alpha=0.5, label="50 %")
    ax.plot(places, site.data, "o", color=COLORS["right"], ms=5, label="data")
    within = int(((low <= site.data) & (site.data <= high)).sum())
    ax.set(xlabel="observation", ylabel=site.name)
    ax.set_title(f"{within} of {len(places)} observations are within 90 %", fontsize=10)


def _together(ax: Axes, site: _Site) -> None:
    edges = _edges(site)
    shares = np.stack([_shares(row, edges) for row in site.draws])
    low, middle, high = np.quantile(shares, [BAND[0], 0.5, BAND[1]], axis=0)
    ax.stairs(
        high, edges, baseline=low, fill=True, color=COLORS["left"], alpha=0.3, lw=0,
        label="90 % predicted",
    )  # fmt: skip
    ax.stairs(middle, edges, color=COLORS["left"], lw=1.2, label="50 %")
    seen = _shares(site.data, edges)
    ax.stairs(seen, edges, color=COLORS["right"], lw=1.6, label=f"{len(site.data):,} data")
    used = (high > 0) | (seen > 0)
    within = int((used & (low <= seen) & (seen <= high)).sum())
    ax.set(xlabel=site.name, ylabel="share of the data", xlim=(edges[0], edges[-1]))
    ax.set_ylim(bottom=0)
    ax.set_title(f"{within} of {used.sum()} bars are within 90 %", fontsize=10)


def _edges(site: _Site) -> Array:
    """Of the bars: around each number where data are few whole numbers, and else even."""
    values = np.concatenate([site.data, site.draws[np.isfinite(site.draws)]])
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    low, high = min(low, site.data.min()), max(high, site.data.max())
    if (values == np.round(values)).all() and high - low < BINS:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    count = int(np.clip(2.6 * len(site.data) ** (1 / 3), 8, BINS))
    return np.linspace(low, high if high > low else low + 1.0, count + 1)


def _shares(values: Array, edges: Array) -> Array:
    """Of all values; those outside count."""
    heights: Array = np.histogram(values, edges)[0] / len(values)
    return heights
