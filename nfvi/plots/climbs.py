"""The rungs of a climb: how good each was, and what all had cost until then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nfvi.plots.style import COLORS, AnyFigure, Array, new_figure, tidy
from nfvi.utils import KHAT_LIMIT

__all__ = ["path"]

SHOWN = 3.0
"""k-hats over this, and infinite ones, are drawn at the upper edge."""
LINE = 100
"""Letters in a line of the key."""


class RungLike(Protocol):
    """One guide on the way, such as a :class:`nfvi.fit.Rung`; its text is its formula."""

    @property
    def elbo(self) -> float: ...
    @property
    def elbo_se(self) -> float: ...
    @property
    def khat(self) -> float: ...
    @property
    def log_evidence(self) -> float: ...
    @property
    def batched_evaluations(self) -> int: ...


class PathLike(Protocol):
    """Rungs in their order, and which of them was kept, such as ``fit.path``."""

    @property
    def best(self) -> int: ...

    def __iter__(self) -> Iterator[RungLike]: ...


def path(path: PathLike, *, fig: AnyFigure | None = None) -> AnyFigure:
    """ELBO and k-hat of each rung of a climb, against the gradient batches that all had taken.

    Rungs are numbered in their order, and the one that was kept is ringed. The broken lines are the
    log evidence of the one that was kept, and the k-hat of 0.7.

    Args:
        path: what ``NFVI("auto").fit(target)`` keeps as ``fit.path``.
        fig: where to draw; default a new figure.

    Returns:
        The figure.
    """
    rungs = list(path)
    cost = np.array([max(rung.batched_evaluations, 1) for rung in rungs], float)
    fig = new_figure(fig, (8.0, 5.4))
    upper, lower = fig.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    elbo = np.array([rung.elbo for rung in rungs])
    khat = np.array([min(rung.khat, SHOWN) for rung in rungs]).clip(-0.5)
    errors = np.nan_to_num([rung.elbo_se for rung in rungs])
    upper.errorbar(cost, elbo, errors, fmt="none", ecolor=COLORS["other"], lw=1)
    _marks(upper, cost, elbo, path.best)
    _marks(lower, cost, khat, path.best)
    level = rungs[path.best].log_evidence
    if np.isfinite(level):
        upper.axhline(level, color=COLORS["exact"], lw=1, ls="--", zorder=1)
    lower.axhline(KHAT_LIMIT, color=COLORS["exact"], lw=1, ls="--", zorder=1)
    upper.set(ylabel="ELBO (nats)", title="the rungs of a climb", ylim=_limits(elbo, level))
    upper.ticklabel_format(axis="y", useOffset=False)
    lower.set(ylabel="k-hat", xlabel="batches of gradients, all rungs so far")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    fig.supxlabel(_key(rungs, path.best), fontsize=8, color="0.3")
    return fig


def _marks(ax: Axes, cost: Array, values: Array, best: int) -> None:
    """A line through all rungs, a dot with its number at each, and a ring around the best."""
    tidy(ax).plot(cost, values, "-o", color=COLORS["left"], lw=1, ms=5, zorder=2)
    ax.plot(cost[best], values[best], "o", ms=12, mfc="none", mec=COLORS["right"], zorder=3)
    for number, (x, y) in enumerate(zip(cost, values, strict=True), 1):
        # Rungs of the same cost stand above each other: their numbers go to both sides.
        side = -1 if number % 2 else 1
        ax.annotate(
            str(number), (x, y), (9 * side, 2), textcoords="offset points", fontsize=8,
            ha="center", annotation_clip=True,
        )  # fmt: skip


def _limits(elbo: Array, level: float) -> tuple[float, float]:
    """Those of all finite ELBOs and the log evidence, with a margin."""
    values = [*elbo[np.isfinite(elbo)], *([level] if np.isfinite(level) else [])]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = max(0.08 * (high - low), 1e-3)
    return low - margin, high + margin


def _key(rungs: list[RungLike], best: int) -> str:
    """Which number is which formula, in lines of some length."""
    lines = [""]
    for number, rung in enumerate(rungs, 1):
        words = f"{number}: {rung}" + (" (kept)" if number - 1 == best else "")
        if lines[-1] and len(lines[-1]) + len(words) > LINE:
            lines.append("")
        lines[-1] += ("   " if lines[-1] else "") + words
    return "\n".join(lines)
