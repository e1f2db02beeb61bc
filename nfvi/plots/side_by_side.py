"""A comparison in two dimensions: the target, then the draws of either side, on one window."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpecFromSubplotSpec, SubplotSpec

from nfvi.plots.densities import draw_grid, key, outside, scatter, square
from nfvi.plots.grids import Grid, grid_of_target, is_long, window_of
from nfvi.plots.marginals import densities
from nfvi.plots.protocols import ComparisonLike, SideLike
from nfvi.plots.style import COLORS, AnyFigure, Window, array, new_figure, note

__all__ = ["side_by_side"]

NOTE = 0.25
"""Inches of height for a line below the panels, so that their titles keep their room."""


def side_by_side(
    comparison: ComparisonLike, *, window: Window | None = None, fig: AnyFigure | None = None
) -> AnyFigure:
    """The target, the right side and the left one with d = 2; below, each coordinate alone.

    Args:
        comparison: of sides with d = 2, drawn on unconstrained space.
        window: ((left, right), (bottom, top)); default from the exact draws if there are any, else
            from those of both sides.
        fig: where to draw; default a new figure.
    """
    left, right, exact = comparison.left, comparison.right, comparison.exact
    window = window or window_of(
        torch.cat([left.draws, right.draws.to(left.draws)]) if exact is None else exact.draws
    )
    values = grid_of_target(left.target, window, left.draws)
    long = is_long(window)
    # Three squares in a row are as high as the window makes them; three strips share what there is.
    (x0, x1), (y0, y1) = window
    height = 5.4 if long else 0.7 + 2.4 * (y1 - y0) / (x1 - x0)
    notes = [outside(window, side.draws) for side in (right, left)]
    height += NOTE * any(notes)
    fig = new_figure(fig, (8.0, height + 2.1))
    outer = fig.add_gridspec(2, 1, height_ratios=(height, 1.9))
    panels = _panels(fig, outer[0], long)
    draw_grid(panels[0], values, "exact")
    panels[0].set_title(f"{left.target.name}, the target", fontsize=11)
    sides = zip(panels[1:], (right, left), ("right", "left"), notes, strict=True)
    for ax, side, role, words in sides:
        draw_grid(ax, values, "exact", lines=True)
        scatter(ax, side.draws, COLORS[role])
        note(ax, *words)
        ax.set_title(f"{side.label}, {len(side.draws)} draws", fontsize=11, color=COLORS[role])
    for ax in panels:
        square(ax, window)
        if long:
            ax.label_outer()
        elif ax is not panels[0]:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
    _marginals(fig, outer[1], (left, right), values, window)
    # The lines are at 50, 90 and 99 %, as far as these are among the shades.
    caption = f"the target, {key(False, False, values)}; beside it as lines"
    fig.supxlabel(caption, fontsize=8, color="0.3")
    return fig


def _panels(fig: AnyFigure, place: SubplotSpec, long: bool) -> list[Axes]:
    shape = (3, 1) if long else (1, 3)
    inner = GridSpecFromSubplotSpec(*shape, subplot_spec=place)
    return [fig.add_subplot(inner[i]) for i in range(3)]


def _marginals(
    fig: AnyFigure,
    place: SubplotSpec,
    sides: tuple[SideLike, SideLike],
    values: Grid,
    window: Window,
) -> None:
    inner = GridSpecFromSubplotSpec(1, 2, subplot_spec=place)
    for axis in (0, 1):
        ax = fig.add_subplot(inner[axis])
        columns = [array(side.draws)[:, axis] for side in sides]
        densities(ax, columns, [side.label for side in sides], window[axis])
        x, y = values.marginal(axis)
        ax.plot(x, y, color=COLORS["exact"], lw=1.2, label="target", zorder=3)
        ax.set(xlabel=f"z[{axis}]", ylabel="density" if axis == 0 else "", xlim=window[axis])
        if axis == 0:
            ax.legend(fontsize=8, loc="best", frameon=False)
