"""What all pictures share: colours, figures outside pyplot, and numbers for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

__all__ = [
    "COLORS",
    "AnyFigure",
    "Array",
    "Picture",
    "PictureAxes",
    "Window",
    "array",
    "figure_of",
    "legend_below",
    "listed",
    "new_axes",
    "new_figure",
    "note",
    "thinned",
    "tidy",
]

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
AnyFigure: TypeAlias = Figure | SubFigure
Window: TypeAlias = tuple[tuple[float, float], tuple[float, float]]

COLORS = {
    "left": "#0072B2",
    "right": "#D55E00",
    "exact": "#000000",
    "other": "#8C8C8C",
    "shade": "#F0E442",
}
"""Colours by role, which readers with any colour vision can tell apart.

Reference:
    Masataka Okabe and Kei Ito, "Color Universal Design", 2008.
"""

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Picture(Figure):
    """A figure that pyplot does not keep, and that a notebook shows all the same, once."""

    def _repr_png_(self) -> bytes:
        return png(self)


class PictureAxes(Axes):
    """The only axes of such a figure, which show all of it."""

    def _repr_png_(self) -> bytes:
        return png(figure_of(self))


def png(figure: Figure) -> bytes:
    """A figure as a file in PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def new_figure(figure: AnyFigure | None, size: tuple[float, float]) -> AnyFigure:
    """The given figure, or a new one of a size in inches that pyplot does not keep."""
    return figure if figure is not None else Picture(figsize=size, dpi=100, layout="constrained")


def new_axes(ax: Axes | None, size: tuple[float, float] = (8.0, 4.5)) -> Axes:
    """The given axes, or the only ones of a new figure."""
    if ax is not None:
        return ax
    return new_figure(None, size).subplots(subplot_kw={"axes_class": PictureAxes})


def figure_of(ax: Axes) -> Figure:
    """The whole figure that the axes are in."""
    figure = ax.get_figure(root=True)
    if not isinstance(figure, Figure):
        raise ValueError("these axes are in no figure")
    return figure


def note(ax: Axes, *words: str) -> None:
    """Small grey words below the label of x, at the right."""
    if text := "; ".join(word for word in words if word):
        ax.annotate(
            text, (1, 0), xytext=(0, -44), ha="right", xycoords="axes fraction",
            textcoords="offset points", fontsize=8, color="0.3",
        )  # fmt: skip


def legend_below(ax: Axes, columns: int) -> None:
    """A legend without a frame below the label of x, at any height of the axes."""
    down = ScaledTranslation(0, -36 / 72, figure_of(ax).dpi_scale_trans)
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=ax.transAxes + down,
        ncols=columns, fontsize=9, frameon=False, borderaxespad=0.0,
    )  # fmt: skip


def tidy(ax: Axes) -> Axes:
    """Without the upper and the right border."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def array(x: Tensor) -> Array:
    """A tensor of any device and dtype as float64 numbers."""
    result: Array = x.detach().to("cpu", torch.float64).numpy()
    return result


def thinned(x: Array, most: int) -> Array:
    """At most so many rows, evenly spaced in their order."""
    if len(x) <= most:
        return x
    kept: Array = x[np.linspace(0, len(x) - 1, most).round().astype(int)]
    return kept


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names with commas, the last ones only counted where there are many."""
    names = list(names)
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
