"""Densities in two dimensions: the target, a guide, and where a fit starts."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from nfvi.plots.grids import MASSES, Grid, grid_of_guide, grid_of_target, is_long, window_of
from nfvi.plots.protocols import DensityLike, GuideLike, MixtureLike, TargetLike
from nfvi.plots.style import COLORS, Window, array, figure_of, new_axes, note, thinned

__all__ = [
    "LINED",
    "draw_grid",
    "exact_draws",
    "guide",
    "key",
    "outside",
    "sample",
    "scatter",
    "size_of",
    "square",
    "target",
    "title_of",
]

DRAWS = 4000
LOG_DEPTH = 10.0
LINE = {"exact": "#404040", "left": COLORS["left"]}
LINED = (0.99, 0.9, 0.5)


class HasGuide(Protocol):
    """What has a guide, such as a :class:`nfvi.Fit`."""

    @property
    def guide(self) -> GuideLike: ...


def target(
    target: TargetLike,
    *,
    window: Window | None = None,
    draws: Tensor | None = None,
    log: bool = False,
    lines: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """The density of a target with d = 2, shaded by mass: 25, 50, 75, 90 and 99 % of it.

    Args:
        target: on unconstrained space.
        window: ((left, right), (bottom, top)); default the central 98 % of ``draws``, or else of
            the target's exact draws, along each coordinate, and a margin.
        draws: points (n, 2) to draw on top.
        log: whether to shade by log-density, down to 10 nats below the maximum in the window,
            with a colour bar.
        lines: whether to draw the lines alone, as over another picture.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: the target is not of two dimensions, or there is nothing to choose a window by.
    """
    _check_two(target.dim)
    if window is None:
        window = window_of(exact_draws(target) if draws is None else draws)
    ax = square(new_axes(ax, size_of(window)), window)
    values = grid_of_target(target, window, draws)
    draw_grid(ax, values, "exact", log=log, lines=lines)
    if not ax.get_title():
        ax.set_title(target.name)
    if draws is not None:
        scatter(ax, draws, COLORS["left"])
    note(ax, key(log, lines, values), *outside(window, draws))
    return ax


def guide(
    fit: HasGuide | GuideLike,
    *,
    window: Window | None = None,
    draws: Tensor | int = 0,
    log: bool = False,
    lines: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """The density of a guide with d = 2 on unconstrained space, shaded as in :func:`target`.

    Args:
        fit: a fit, a guide or a mixture of guides.
        window: as for :func:`target`; default from 4000 draws of the guide.
        draws: points (n, 2) to draw on top, or how many of the guide.
        log: as for :func:`target`.
        lines: as for :func:`target`.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        TypeError: a fit to data, which :func:`density` draws.
        ValueError: the guide is not of two dimensions.
    """
    if isinstance(fit, DensityLike):
        raise TypeError("a fit to data is drawn in the units of the data by plots.density(fit, x)")
    chosen = fit if isinstance(fit, GuideLike) else fit.guide
    _check_two(chosen.dim)
    if isinstance(draws, int):
        draws = sample(chosen, draws)
    if window is None:
        window = window_of(sample(chosen, DRAWS))
    ax = square(new_axes(ax, size_of(window)), window)
    values = grid_of_guide(chosen, window)
    draw_grid(ax, values, "left", log=log, lines=lines)
    if not ax.get_title():
        ax.set_title(title_of(chosen))
    if len(draws):
        scatter(ax, draws, COLORS["right"])
    note(ax, key(log, lines, values), *outside(window, draws))
    return ax


def sample(guide: GuideLike, n: int) -> Tensor:
    """The same n draws (n, d) of a guide at each call."""
    return guide.sample(n, generator=torch.Generator(guide.device).manual_seed(0))


def title_of(guide: GuideLike) -> str:
    """The formula of a guide, or of how many a mixture is."""
    return str(guide) if isinstance(guide, MixtureLike) else str(guide.formula)


def exact_draws(target: TargetLike) -> Tensor:
    """4000 exact draws of a target, the same at each call."""
    if not target.has_sampler:
        raise ValueError(
            f"{target.name!r} has no exact draws to choose a window by; pass"
            " window=((left, right), (bottom, top)) or draws="
        )
    generator = torch.Generator("cpu").manual_seed(0)
    return target.sample(DRAWS, generator=generator, device="cpu")


def square(ax: Axes, window: Window, names: tuple[str, str] = ("z[0]", "z[1]")) -> Axes:
    """Limits and labels for a window, with equal scales unless it is long and narrow."""
    ax.set(xlim=window[0], ylim=window[1], xlabel=names[0], ylabel=names[1])
    if not is_long(window):
        # At the top of its place, so that the layout sees how much room the title needs.
        ax.set_aspect("equal", anchor="N")
    return ax


def size_of(window: Window) -> tuple[float, float]:
    """The size of a figure for one window, in inches."""
    (x0, x1), (y0, y1) = window
    return (8.0, 3.6) if is_long(window) and x1 - x0 > y1 - y0 else (6.0, 5.0)


def draw_grid(ax: Axes, values: Grid, role: str, *, log: bool = False, lines: bool = False) -> None:
    """Shade a density on a grid, or draw the lines around 50, 90 and 99 % of its mass."""
    if lines:
        levels = values.levels(LINED)
        if len(levels):
            ax.contour(
                values.x, values.y, values.density, levels, colors=LINE[role], linewidths=0.8
            )
        return
    cmap = "Greys" if role == "exact" else "Blues"
    if log:
        height = values.log_density - values.log_density.max()
        shades = ax.contourf(
            values.x, values.y, height.clip(-1e9), [x * LOG_DEPTH / 10 for x in range(-10, 1)],
            cmap=cmap, extend="min",
        )  # fmt: skip
        figure_of(ax).colorbar(shades, ax=ax, label="log-density below its maximum (nats)")
        return
    levels = values.levels()
    density = values.density
    if len(levels) == 0:
        return
    colors = ["#E3E3E3", "#C2C2C2", "#969696", "#636363", "#2B2B2B"]
    if role != "exact":
        colors = ["#DCEAF7", "#B2D2EC", "#73B2D8", "#2E7EBC", "#084A91"]
    # The window may cut the larger regions: those that are left keep their shade.
    ax.contourf(
        values.x, values.y, density, [*levels, max(density.max(), levels[-1]) * 1.0001],
        colors=colors[len(MASSES) - len(levels) :],
    )  # fmt: skip


def scatter(ax: Axes, draws: Tensor, color: str) -> None:
    """At most 4000 draws (n, 2) as points."""
    shown = thinned(array(draws), DRAWS)
    size, alpha = (3.0, 0.35) if len(shown) > 1500 else (6.0, 0.5)
    ax.scatter(shown[:, 0], shown[:, 1], s=size, color=color, alpha=alpha, linewidths=0)


def outside(window: Window, draws: Tensor | None) -> list[str]:
    """How many of the draws (n, 2) are outside the window, in words, from 0.5 % on."""
    if draws is None or not len(draws):
        return []
    values = array(draws)
    low, high = np.array(window).T
    share = 1 - ((values >= low) & (values <= high)).all(1).mean()
    return [f"{share:.0%} outside"] if share >= 0.005 else []


def key(log: bool, lines: bool, *drawn: Grid) -> str:
    """What the shades or lines of densities stand for, in words: only what is seen is promised.

    A density that is not normalised has no mass but that in the window.
    """
    if log and not lines:
        return ""
    masses = LINED if lines else MASSES
    held = [m for m in reversed(masses) if all(m in grid.held(masses) for grid in drawn)]
    if not held:
        return f"the window holds less than {masses[-1]:.0%} of the mass"
    numbers = ", ".join(f"{100 * m:.0f}" for m in held)
    where = "" if all(grid.normalised for grid in drawn) else " in the window"
    cut = "" if len(held) == len(masses) else "; the window cuts more"
    return f"{'lines' if lines else 'shades'}: {numbers} % of the mass{where}{cut}"


def _check_two(dim: int) -> None:
    if dim != 2:
        raise ValueError(f"a picture of a density needs d = 2, got d = {dim}")
