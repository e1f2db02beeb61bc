"""Pictures of a whole result: a fit beside its target, and two sides in comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from nfvi.plots.densities import draw_grid, exact_draws, key, sample, square, title_of
from nfvi.plots.grids import grid_of_guide, grid_of_target, is_long, window_of
from nfvi.plots.marginals import pairs
from nfvi.plots.protocols import ComparisonLike, GuideLike, TargetLike
from nfvi.plots.side_by_side import side_by_side
from nfvi.plots.style import AnyFigure, Window, new_figure

__all__ = ["comparison", "fitted"]


class FittedLike(Protocol):
    """A guide beside its target, such as a :class:`nfvi.Fit`."""

    @property
    def guide(self) -> GuideLike: ...
    @property
    def target(self) -> TargetLike | None: ...
    @property
    def dim(self) -> int: ...


def fitted(
    fit: FittedLike,
    *,
    window: Window | None = None,
    log: bool = False,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """The density of a target with d = 2 beside that of its fit, both on unconstrained space.

    Args:
        fit: with its target.
        window: ((left, right), (bottom, top)); default from 4000 draws of the fit, and the
            target's exact ones where it has them.
        log: as for :func:`nfvi.plots.target`.
        fig: where to draw; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: the fit is not of two dimensions, or was loaded without its target.
    """
    if fit.target is None:
        raise ValueError("a fit without a target; load it by Fit.load(path, target=...)")
    if fit.dim != 2:
        raise ValueError(f"a picture of a density needs d = 2, got d = {fit.dim}")
    draws = sample(fit.guide, 4000)
    if window is None:
        seen = draws
        if fit.target.has_sampler:
            seen = torch.cat([draws, exact_draws(fit.target).to(draws)])
        window = window_of(seen)
    long = is_long(window)
    (x0, x1), (y0, y1) = window
    fig = new_figure(fig, (8.0, 5.6 if long else 0.9 + 3.6 * (y1 - y0) / (x1 - x0)))
    upper, lower = fig.subplots(*((2, 1) if long else (1, 2)), sharex=True, sharey=True)
    both = grid_of_target(fit.target, window, draws), grid_of_guide(fit.guide, window)
    for ax, values, role, title in (
        (upper, both[0], "exact", f"{fit.target.name}, the target"),
        (lower, both[1], "left", title_of(fit.guide)),
    ):
        draw_grid(square(ax, window), values, role, log=log)
        ax.set_title(title, fontsize=11)
        ax.label_outer()
    if not log:
        fig.supxlabel(key(log, False, *both), fontsize=8, color="0.3")
    return fig


def comparison(
    comparison: ComparisonLike,
    *,
    window: Window | None = None,
    names: Sequence[str] | None = None,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """Two sides and the target in one figure.

    A log-density with d = 2 is shown beside the draws of either side, on a common window, with the
    density of each coordinate below. All others, models among them, are shown by :func:`pairs`.

    Args:
        comparison: what :func:`nfvi.compare` returned.
        window: ((left, right), (bottom, top)), for a log-density with d = 2; default the central
            98 % of the exact draws, or of both sides, and a margin.
        names: which scalars to show in pairs; default those in which the sides differ most.
        fig: where to draw, a figure or a part of one; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: window for a comparison that is shown in pairs, or an unknown name.
    """
    flat = comparison.left.target.dim == 2 and not comparison.left.target.named
    if flat and names is None:
        return side_by_side(comparison, window=window, fig=fig)
    if window is not None:
        raise ValueError("window= is for log-densities with d = 2; this is shown in pairs")
    return pairs(comparison, names=names, fig=fig)
