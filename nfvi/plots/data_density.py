"""A density that was fitted to data, beside the data, in one or two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from nfvi.plots.densities import draw_grid, key, outside, scatter, size_of, square
from nfvi.plots.grids import grid, window_of
from nfvi.plots.protocols import DensityLike
from nfvi.plots.style import COLORS, Array, Window, array, new_axes, note, tidy

__all__ = ["density", "draws_of"]

DRAWS = 4000
POINTS = 800
BINS = 100


def density(
    fit: DensityLike,
    x: Any = None,
    *,
    context: Any = None,
    window: Window | tuple[float, float] | None = None,
    log: bool = False,
    lines: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """The density of a fit to data with d = 1 or 2, in the units of the data.

    One column is a curve, over a histogram of the data. Two columns are shaded by mass (25, 50, 75,
    90 and 99 % of it), with the data as dots.

    Args:
        fit: what :meth:`nfvi.NFVI.fit_data` returned.
        x: data to draw, (n, d); default none.
        context: one context (c), where the fit has one; ``x`` should be the rows that belong to it.
        window: (left, right), or ((left, right), (bottom, top)) for d = 2; default the central
            98 % of the data, or else of draws, and a margin.
        log: whether to shade by log-density, or, for d = 1, to have a logarithmic scale.
        lines: for d = 2, whether to draw the lines around 50, 90 and 99 % of the mass alone.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: the fit has more than two columns, or data, context or window do not suit it.
    """
    if fit.dim > 2:
        raise ValueError(f"a picture of a density needs d = 1 or 2, got d = {fit.dim}")
    if fit.context_dim and np.ndim(context) > 1:
        raise ValueError("a picture of a density is at one context (c)")
    data = None if x is None else fit.rows(x).cpu()
    around = draws_of(fit, DRAWS, context) if data is None else data
    names = fit.columns or tuple(f"x[{i}]" for i in range(fit.dim))
    if fit.dim == 1:
        ax = _curve(fit, data, context, _interval(window, around), log, new_axes(ax))
        ax.set(xlabel=names[0], ylabel="density")
    else:
        if window is not None and np.shape(window) != (2, 2):
            raise ValueError(f"window must be ((left, right), (bottom, top)), got {window!r}")
        chosen: Window = window_of(around) if window is None else window  # type: ignore[assignment]
        ax = _shades(fit, data, context, chosen, (log, lines), ax)
        ax.set(xlabel=names[0], ylabel=names[1])
    if not ax.get_title():
        ax.set_title(f"{fit.formula} on data")
    return ax


def draws_of(fit: DensityLike, n: int, context: Any) -> Tensor:
    """n draws (n, d) of a fit, always the same, in float64 on the CPU."""
    draws = fit.sample(n, context, seed=0)
    if not isinstance(draws, Tensor):
        draws = torch.tensor(np.asarray(draws, np.float64))
    return draws.cpu().double()


def _shades(
    fit: DensityLike,
    data: Tensor | None,
    context: Any,
    window: Window,
    how: tuple[bool, bool],
    ax: Axes | None,
) -> Axes:
    log, lines = how
    values = grid(
        lambda z: fit.log_prob(z, context), window, log_normalizer=0.0, dtype=torch.float64
    )
    ax = square(new_axes(ax, size_of(window)), window)
    if data is not None and lines:
        scatter(ax, data, COLORS["other"])
    draw_grid(ax, values, "left", log=log, lines=lines)
    if data is not None and not lines:
        scatter(ax, data, COLORS["right"])
    note(ax, key(log, lines, values), *outside(window, data))
    return ax


def _curve(
    fit: DensityLike,
    data: Tensor | None,
    context: Any,
    ends: tuple[float, float],
    log: bool,
    ax: Axes,
) -> Axes:
    places = torch.linspace(*ends, POINTS, dtype=torch.float64)
    with torch.no_grad():
        values = array(fit.log_prob(places.unsqueeze(-1), context).exp())
    if data is not None:
        _histogram(ax, array(data).ravel(), ends)
    ax.plot(array(places), values, color=COLORS["left"], lw=1.8, label=str(fit.formula))
    tidy(ax).set(xlim=ends)
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    if data is not None:
        ax.legend(frameon=False, fontsize=9)
    return ax


def _histogram(ax: Axes, rows: Array, ends: tuple[float, float]) -> None:
    """Heights of the share of all rows; those outside the window count."""
    edges = np.linspace(*ends, int(np.clip(2.6 * len(rows) ** (1 / 3), 8, BINS)) + 1)
    heights = np.histogram(rows, edges)[0] / (len(rows) * (edges[1] - edges[0]))
    ax.stairs(
        heights, edges, fill=True, color=COLORS["other"], alpha=0.35, lw=0,
        label=f"{len(rows):,} rows",
    )  # fmt: skip


def _interval(window: Any, around: Tensor) -> tuple[float, float]:
    if window is None:
        return window_of(around.expand(-1, 2))[0]
    low, high = np.asarray(window, np.float64).ravel()[:2]
    if np.size(window) != 2 or not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"window must be (left, right) for d = 1, got {window!r}")
    return float(low), float(high)
