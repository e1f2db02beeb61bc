"""The ELBO that each restart ended with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes

from nfvi.plots.style import COLORS, legend_below, new_axes, tidy

__all__ = ["restarts"]

FAR = 10.0
"""Times the spread of the better half: restarts that are further behind stand at the edge."""
LEAST = 1e-3
HIGHEST = 0.45
"""Inches for each restart."""


class RestartLike(Protocol):
    """One restart, such as :class:`nfvi.fit.restarts.Restart`."""

    @property
    def index(self) -> int: ...
    @property
    def elbo(self) -> float: ...
    @property
    def elbo_se(self) -> float: ...
    @property
    def tempered(self) -> bool: ...
    @property
    def dropped(self) -> bool: ...
    @property
    def best(self) -> bool: ...
    @property
    def pruned(self) -> int | None: ...
    @property
    def weight(self) -> float | None: ...


class RestartsLike(Protocol):
    """What has restarts, such as a :class:`nfvi.Fit`."""

    @property
    def formula(self) -> object: ...
    @property
    def restarts(self) -> Sequence[RestartLike]: ...


def restarts(fit: RestartsLike, *, ax: Axes | None = None) -> Axes:
    """The ELBO of every restart with two standard errors, the best one on top.

    What was kept is filled: the best restart, or those of a mixture with their weights. Restarts
    that agree say that there is one answer to find; ELBOs that lie apart by more than their errors
    are other modes, or fits that have not arrived. One that is far behind stands at the left edge,
    with its number.

    Args:
        fit: with its restarts.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: no restart has a finite ELBO.
    """
    order = sorted(fit.restarts, key=lambda r: r.elbo if np.isfinite(r.elbo) else -np.inf)
    able = [r for r in order if np.isfinite(r.elbo)]
    if not able:
        raise ValueError("no restart has a finite ELBO")
    ax = tidy(new_axes(ax, (8.0, 1.9 + HIGHEST * len(order))))
    left = _edge([r.elbo for r in able], able[-1].elbo_se)
    for height, one in enumerate(order):
        _draw(ax, one, height, left)
    for filled, word in ((True, "kept"), (False, "not kept")):
        ax.plot([], [], "o", **_look(filled), label=word)
    ax.set_yticks(range(len(order)), [_label(r) for r in order])
    ax.set(ylim=(-0.6, len(order) - 0.4), xlabel="ELBO (nats)", ylabel="restart")
    ax.set_title(f"restarts of {fit.formula}")
    ax.ticklabel_format(axis="x", useOffset=False)
    legend_below(ax, 2)
    return ax


def _edge(elbos: Sequence[float], error: float) -> float:
    """The least ELBO that has its own place."""
    values = np.array(elbos)
    better = values[(len(values) - 1) // 2 :]
    spread = max(float(better[-1] - better[0]), 4 * np.nan_to_num(error), LEAST)
    return float(max(values[0], better[-1] - FAR * spread))


def _draw(ax: Axes, one: RestartLike, height: int, left: float) -> None:
    look = _look(one.best if one.weight is None else True)
    if np.isfinite(one.elbo) and one.elbo >= left:
        error = 2 * one.elbo_se if np.isfinite(one.elbo_se) else 0.0
        ax.errorbar(one.elbo, height, xerr=error, fmt="o", capsize=3, **look)
        return
    ax.plot(left, height, marker="$\u25c2$", **look)
    words = f"{one.elbo:.4g}" if np.isfinite(one.elbo) else "none"
    ax.annotate(
        words, (left, height), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8,
        color="0.3",
    )  # fmt: skip


def _label(one: RestartLike) -> str:
    """The number of a restart, and what became of it."""
    words = [str(one.index)]
    words += ["tempered"] * one.tempered + ["dropped"] * one.dropped
    words += [] if one.pruned is None else [f"pruned at step {one.pruned:,}"]
    words += [] if one.weight is None else [f"weight {one.weight:.3f}"]
    return ", ".join(words)


def _look(kept: bool) -> dict[str, Any]:
    color = COLORS["left"]
    return {"color": color, "markerfacecolor": color if kept else "white"}
