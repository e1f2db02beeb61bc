"""Ranks of true values among draws, and what uniform ranks would look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from nfvi.plots.style import COLORS, AnyFigure, Array, listed, new_figure, tidy

__all__ = ["ranks"]

PANELS = 16
COLUMNS = 4
BINS = 20

Counts: TypeAlias = NDArray[np.int64]


class RankCheckLike(Protocol):
    """What the ranks of one scalar say, in numbers and words."""

    @property
    def name(self) -> str: ...
    @property
    def p_value(self) -> float: ...
    @property
    def passed(self) -> bool: ...
    @property
    def words(self) -> str: ...


class CalibrationLike(Protocol):
    """N ranks of each scalar, from 0 to ``draws``, such as a :class:`nfvi.Calibration`.

    ``indices`` are the numbers of the simulations; ``columns`` has the ranks (N) of each scalar,
    and ``checks`` what they say.
    """

    @property
    def name(self) -> str: ...
    @property
    def formula(self) -> str: ...
    @property
    def draws(self) -> int: ...
    @property
    def indices(self) -> Sequence[int]: ...
    @property
    def columns(self) -> Mapping[str, Counts]: ...
    @property
    def checks(self) -> Sequence[RankCheckLike]: ...

    def ecdf_band(self) -> tuple[Counts, Counts]:
        """The least and the most ranks below 1, ..., L if they are uniform: each (L)."""

    def bin_band(self, shares: Array, /) -> tuple[Counts, Counts]:
        """The least and the most ranks in bins of these shares if they are uniform."""


def ranks(
    calibration: CalibrationLike,
    *,
    kind: Literal["ecdf", "histogram"] = "ecdf",
    names: Sequence[str] | None = None,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """A panel for each scalar with its ranks, and the band that uniform ranks stay in.

    ``"ecdf"`` has the ECDF of the ranks less that of uniform ones, and a band that all panels
    together leave with a chance of 1 %, which is that of the test. ``"histogram"`` has counts, and
    a band that each bar alone leaves with a chance of 1 %. Scalars that are not uniform are orange.

    - ∩ (ECDF: below, then above the line) is a fit that is too wide, ∪ one that is too narrow.
    - Ranks at the right (ECDF: below the line) are those of draws that are too low.

    Args:
        calibration: what :func:`nfvi.calibrate` returned.
        kind: what is drawn.
        names: of the scalars; default all, the 16 with the least p-values where there are more.
        fig: where to draw; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: ``kind`` or a name is unknown.

    Reference:
        Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications
        in goodness-of-fit evaluation and multiple sample comparison, 2022.
    """
    if kind not in ("ecdf", "histogram"):
        raise ValueError(f"kind must be 'ecdf' or 'histogram', got {kind!r}")
    shown = _chosen(calibration.checks, names)
    columns = calibration.columns
    wide = min(COLUMNS, len(shown))
    high = -(-len(shown) // wide)
    fig = new_figure(fig, (max(4.0, 2.3 * wide + 0.6), 2.0 * high + 1.0))
    axes = fig.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
    for ax, check in zip(axes.flat, shown, strict=False):
        column = columns[check.name]
        color = COLORS["left" if check.passed else "right"]
        if kind == "ecdf":
            _ecdf(ax, column, calibration, color)
        else:
            _histogram(ax, column, calibration, color)
        ax.set_title(f"{check.name} {check.words}".strip(), fontsize=9, color=color)
        tidy(ax).tick_params(labelsize=8)
    if kind == "histogram":
        axes[0, 0].set_ylim(bottom=0)  # of all panels, once they have found their height
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    for ax in axes.flat[max(0, len(shown) - wide) : len(shown)]:
        ax.tick_params(labelbottom=True)
    _words(fig, calibration, kind, len(shown))
    return fig


def _chosen(checks: Sequence[RankCheckLike], names: Sequence[str] | None) -> list[RankCheckLike]:
    if names is None:
        worst = sorted(checks, key=lambda check: check.p_value)[:PANELS]
        return [check for check in checks if check in worst]
    by_name = {check.name: check for check in checks}
    for name in names:
        if name not in by_name:
            raise ValueError(f"no scalar {name!r}; there are {listed(list(by_name))}")
    if not names:
        raise ValueError("names= must have at least one name")
    return [by_name[name] for name in names]


def _ecdf(ax: Axes, ranks: Counts, found: CalibrationLike, color: str) -> None:
    n, draws = len(ranks), found.draws
    below = np.searchsorted(np.sort(ranks), np.arange(1, draws + 1))
    x = np.arange(draws + 2) / (draws + 1)
    counts, low, high = (np.concatenate([[0], inner, [n]]) for inner in (below, *found.ecdf_band()))
    ax.fill_between(x, low / n - x, high / n - x, color=COLORS["other"], alpha=0.3, lw=0)
    ax.axhline(0, color="0.5", lw=0.7)
    ax.step(x, counts / n - x, where="mid", color=color, lw=1.3)
    ax.set_xlim(0, 1)


def _histogram(ax: Axes, ranks: Counts, found: CalibrationLike, color: str) -> None:
    n, values = len(ranks), found.draws + 1
    edges = np.linspace(0, values, min(BINS, values, max(2, n // 10)) + 1).round()
    counts, _ = np.histogram(ranks, edges - 0.5)
    # Bins need not hold equally many of the L + 1 values: each has a band of its own.
    shares = np.diff(edges) / values
    low, high = (edge / (n * shares) for edge in found.bin_band(shares))
    x = edges / values
    ax.stairs(high, x, baseline=low, fill=True, color=COLORS["other"], alpha=0.3, lw=0)
    ax.axhline(1, color="0.5", lw=0.7)
    ax.stairs(counts / (n * shares), x, baseline=None, color=color, lw=1.3)
    ax.set_xlim(0, 1)


def _words(fig: AnyFigure, found: CalibrationLike, kind: str, shown: int) -> None:
    there = len(found.checks)
    some = f", {shown} of {there} scalars" if shown < there else ""
    fig.suptitle(
        f"{found.formula} on {found.name}: {len(found.indices)} simulations{some}", fontsize=11
    )
    fig.supxlabel(f"rank among {found.draws} draws, from 0 to 1", fontsize=9)
    ylabel = "ECDF − uniform" if kind == "ecdf" else "density"
    fig.supylabel(ylabel, fontsize=9)
