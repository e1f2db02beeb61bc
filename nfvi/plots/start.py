"""Where a fit starts: the base and the guide before the first step."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from nfvi.plots.densities import LINED, draw_grid, exact_draws, size_of, square
from nfvi.plots.grids import Grid, grid_of_target, window_of
from nfvi.plots.protocols import GuideLike, MixtureLike, TargetLike
from nfvi.plots.style import COLORS, Array, array, legend_below, new_axes, tidy
from nfvi.utils import check_whole, common_dim

__all__ = ["starting"]


@runtime_checkable
class FlowLike(GuideLike, Protocol):
    """A guide that is one map of its base, such as a :class:`nfvi.Guide`."""

    def base_sample(self, n: int, /, *, generator: torch.Generator | None) -> Tensor:
        """Draws of the base (n, d)."""

    def transform(self, z: Tensor, /) -> tuple[Tensor, Tensor]:
        """Points of the base z (n, d) mapped (n, d), and the log-determinant (n)."""


@runtime_checkable
class StartLike(Protocol):
    """What makes the guide that a fit starts from, such as an :class:`nfvi.NFVI`."""

    def starting_guide(self, target: Any, /, *, dim: int | None, seed: int) -> FlowLike:
        """The guide for a target, or for a dimension."""


def starting(
    start: StartLike | FlowLike,
    target: TargetLike | None = None,
    *,
    dim: int | None = None,
    dims: tuple[int, int] = (0, 1),
    draws: int = 1000,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draws of the guide before the first step, and the same draws of the base.

    Where the jitter is small they nearly coincide. With ``target`` of two dimensions, the lines
    around 50, 90 and 99 % of its mass show how far there is to go.

    Args:
        start: an :class:`~nfvi.NFVI` with a seed, whose first restart starts at just this guide, or
            a guide.
        target: what will be fitted.
        dim: d, for an NFVI without a target.
        dims: which two coordinates are drawn where there are more.
        draws: how many, at least 2.
        seed: of the draws, and of the guide where the NFVI has none.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        TypeError: ``start`` is neither.
        ValueError: no dimension, one that differs from the target's, dims out of range, a mixture
            of guides, or ``NFVI("auto")``.

    Example:
        >>> from nfvi import NFVI
        >>> starting(NFVI("planar*8", seed=1), dim=2).get_title()
        'planar*8 before the first step'
    """
    check_whole("draws", draws, 2)
    if isinstance(start, MixtureLike):
        raise ValueError("starting needs one flow, and a mixture has no one base: pass a component")
    guide = _guide_of(start, target, dim, seed)
    generator = torch.Generator(guide.device).manual_seed(seed)
    base = guide.base_sample(draws, generator=generator)
    with torch.no_grad():
        moved, _ = guide.transform(base)
    if guide.dim == 1:
        ax = _histograms(ax, array(base)[:, 0], array(moved)[:, 0])
    else:
        ax = _dots(ax, base, moved, _checked(dims, guide.dim), target if guide.dim == 2 else None)
    ax.set_title(f"{guide.formula} before the first step")
    legend_below(ax, 3)
    return ax


def _guide_of(
    start: StartLike | FlowLike, target: TargetLike | None, dim: int | None, seed: int
) -> FlowLike:
    if isinstance(start, StartLike):
        return start.starting_guide(target, dim=dim, seed=seed)
    if not isinstance(start, FlowLike):
        raise TypeError(
            f"starting takes an NFVI or a guide, got {type(start).__name__}; of a formula it is"
            ' NFVI("planar*8")'
        )
    known = {"the target": None if target is None else target.dim, "dim=": dim}
    common_dim({**known, "the guide": start.dim})
    return start


def _checked(dims: tuple[int, int], dim: int) -> tuple[int, int]:
    i, j = dims
    check_whole("dims[0]", i, 0, dim - 1)
    check_whole("dims[1]", j, 0, dim - 1)
    return i, j


def _dots(
    ax: Axes | None, base: Tensor, moved: Tensor, dims: tuple[int, int], target: TargetLike | None
) -> Axes:
    """Two of the coordinates as points, over the lines of a target with just these two."""
    seen = [base, moved]
    if target is not None and target.has_sampler:
        seen.append(exact_draws(target).to(base))
    window = window_of(torch.cat(seen)[:, list(dims)])
    ax = new_axes(ax, size_of(window))
    square(ax, window, (f"z[{dims[0]}]", f"z[{dims[1]}]"))
    if target is not None and dims == (0, 1):
        values = grid_of_target(target, window, base)
        draw_grid(ax, values, "exact", lines=True)
        ax.plot([], [], color=COLORS["exact"], lw=0.8, label=_lines_of(target, values))
    # Rings and dots: where both coincide, both are still seen.
    x, y = array(base)[:, list(dims)].T
    ax.scatter(x, y, s=16, facecolors="none", edgecolors=COLORS["right"], lw=0.6, label="base")
    x, y = array(moved)[:, list(dims)].T
    ax.scatter(x, y, s=7, color=COLORS["left"], linewidths=0, alpha=0.8, label="guide")
    return ax


def _lines_of(target: TargetLike, values: Grid) -> str:
    """The name of a target, and the masses whose lines the window shows."""
    held = ", ".join(f"{100 * mass:.0f}" for mass in reversed(values.held(LINED)))
    return f"{target.name}: {held} %" if held else target.name


def _histograms(ax: Axes | None, base: Array, moved: Array) -> Axes:
    ax = tidy(new_axes(ax, (6.0, 5.0)))
    both = np.concatenate([base, moved])
    bins = np.linspace(both.min(), both.max(), 31).tolist()
    for values, name, role in ((base, "base", "right"), (moved, "guide", "left")):
        ax.hist(values, bins, density=True, histtype="step", color=COLORS[role], lw=1.6, label=name)
    ax.set(xlabel="z[0]", ylabel="density")
    return ax
