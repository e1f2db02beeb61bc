"""The record of a fit as curves: ELBO, loss or gradient of every restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nfvi.plots.likelihood_curves import DataFitLike, likelihood_history
from nfvi.plots.protocols import TargetLike
from nfvi.plots.smoothing import band, width_of
from nfvi.plots.style import COLORS, Array, array, legend_below, new_axes, tidy
from nfvi.utils import KHAT_LIMIT

__all__ = ["history"]

LABELS = {
    "elbo": "ELBO (nats)",
    "loss": "loss, E[log q − β log p] (nats)",
    "grad_norm": "gradient length before clipping",
}
POINTS = 2000
# Differences of less than this, in nats, are not worth the room.
LEAST_HEIGHT = 0.02


class HistoryLike(Protocol):
    """The record of a fit, each column (steps, R)."""

    @property
    def elbo(self) -> Tensor: ...
    @property
    def loss(self) -> Tensor: ...
    @property
    def grad_norm(self) -> Tensor: ...
    @property
    def beta(self) -> Tensor: ...


class RestartLike(Protocol):
    """One restart: its column in the history, and whether it is the best and was tempered."""

    @property
    def index(self) -> int: ...
    @property
    def best(self) -> bool: ...
    @property
    def tempered(self) -> bool: ...


class FitLike(Protocol):
    """A fit to a target with its record, such as a :class:`nfvi.Fit`.

    ``kept`` are the restarts that the guide is made of; of ``settings`` the ``"target"`` is read,
    its name.
    """

    @property
    def formula(self) -> object: ...
    @property
    def target(self) -> TargetLike | None: ...
    @property
    def steps(self) -> int: ...
    @property
    def history(self) -> HistoryLike: ...
    @property
    def restarts(self) -> Sequence[RestartLike]: ...
    @property
    def kept(self) -> Sequence[int]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def khat(self) -> float: ...
    @property
    def log_evidence(self) -> float: ...


def history(
    fit: FitLike | DataFitLike,
    *,
    quantity: Literal["elbo", "log_likelihood", "loss", "grad_norm"] | None = None,
    smooth: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The course of a fit: every restart smoothed, the kept one with its noise.

    The steps in which a restart was tempered (β < 1) are shaded. For ELBO and loss a broken line
    shows log Z, which the ELBO cannot pass: as it is known, or else by importance sampling where
    k-hat allows. The limits leave out the first steps, whose values can be huge.

    Of a fit to data there are the rows of each step, the held-out rows, the state that was kept,
    and what a Gaussian with full covariance gives the held-out rows, if that is in the limits.

    Args:
        fit: the fit, to a target or to data, loaded ones included.
        quantity: what is drawn; default ``"elbo"``, or ``"log_likelihood"`` for a fit to data.
            ``"grad_norm"`` has a logarithmic scale, with mean and sd of the logarithm.
        smooth: steps of the running mean, and of the running sd that is the band; default 1/50 of
            the steps, in whole epochs for a fit to data.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: a quantity that this fit does not have, smooth is below 1, or the fit had no
            steps.

    Example:
        >>> from nfvi import NFVI
        >>> fit = NFVI("scale-loc", seed=1).fit(lambda z: -(z**2).sum(-1) / 2, dim=2, steps=20)
        >>> history(fit).get_ylabel()
        'ELBO (nats)'
    """
    if isinstance(fit, DataFitLike):
        return likelihood_history(fit, quantity or "log_likelihood", smooth, ax)
    quantity = quantity or "elbo"
    if quantity not in LABELS:
        raise ValueError(f"quantity must be one of {', '.join(LABELS)}, got {quantity!r}")
    steps = fit.steps
    if not steps:
        raise ValueError(
            f'NFVI("auto") kept {fit.formula} as it was found, without optimiser steps: there is no'
            " history to draw; print(fit.path) shows what was tried"
        )
    smooth = width_of(smooth, steps)
    values = array(getattr(fit.history, quantity))
    mean, upper, lower = band(values, smooth, log=quantity == "grad_norm")
    best = next(r.index for r in fit.restarts if r.best)
    tempered = int((array(fit.history.beta) < 1).any(1).sum())
    ax = tidy(new_axes(ax))
    _curves(ax, fit, (mean, upper, lower), smooth, best)
    _shade(ax, fit, tempered)
    level = _log_z(ax, fit, quantity)
    ax.set_xlabel("step")
    if quantity != "grad_norm":
        ax.ticklabel_format(axis="y", useOffset=False)
    _limits(ax, mean, best, level, quantity, tempered)
    ax.set(ylabel=LABELS[quantity], xlim=(0, max(steps, 2)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"{fit.formula} on {fit.settings['target']}")
    legend_below(ax, 3)
    return ax


def _curves(
    ax: Axes, fit: FitLike, band: tuple[Array, Array, Array], smooth: int, best: int
) -> None:
    mean, upper, lower = band
    chosen = slice(None, None, max(1, len(mean) // POINTS))
    step = np.arange(1, len(mean) + 1)[chosen]
    members = fit.kept
    others = [r for r in fit.restarts if r.index not in members]
    for restart in others:
        label = f"other restarts ({len(others)})" if restart is others[0] else None
        y = mean[chosen, restart.index]
        ax.plot(step, y, color=COLORS["other"], lw=1, label=label, zorder=2)
    label = f"restart {best}, kept" if others else "the fit"
    if len(members) > 1:
        label = f"restarts {', '.join(map(str, members))}, a mixture"
    for index in members:
        if index != best:
            ax.plot(step, mean[chosen, index], color=COLORS["left"], lw=1.8, zorder=3)
    ax.fill_between(
        step, lower[chosen, best], upper[chosen, best], color=COLORS["left"], alpha=0.2, lw=0,
        zorder=2.5, label=f"± sd of one step, over {smooth} steps",
    )  # fmt: skip
    ax.plot(step, mean[chosen, best], color=COLORS["left"], lw=1.8, label=label, zorder=3)


def _shade(ax: Axes, fit: FitLike, tempered: int) -> None:
    if not tempered:
        return
    who = [str(r.index) for r in fit.restarts if r.tempered]
    label = "β rises to 1"
    if len(fit.restarts) > 1 and len(who) < len(fit.restarts):
        label += f" (restart{'s' * (len(who) > 1)} {', '.join(who)})"
    ax.axvspan(0, tempered, color=COLORS["shade"], alpha=0.25, lw=0, label=label, zorder=0)


def _log_z(ax: Axes, fit: FitLike, quantity: str) -> float | None:
    """Draw log Z (−log Z for the loss) where it is known or can be trusted."""
    if quantity == "grad_norm" or fit.target is None:
        return None
    level, label = fit.target.log_normalizer, "log Z, exact"
    if level is None:
        if not fit.khat < KHAT_LIMIT:
            return None
        level, label = fit.log_evidence, "log Z by importance sampling"
    if quantity == "loss":
        level, label = -level, f"−{label}"
    ax.axhline(level, color=COLORS["exact"], lw=1.2, ls="--", label=label, zorder=2.8)
    return level


def _limits(
    ax: Axes, mean: Array, best: int, level: float | None, quantity: str, tempered: int
) -> None:
    """Limits that hold the kept curve after its start, and where the other restarts end."""
    if quantity == "grad_norm":
        ax.set_yscale("log")
        return
    sign = -1.0 if quantity == "loss" else 1.0
    start = min(max(9 * tempered // 10, len(mean) // 10), len(mean) - 1)
    kept = sign * mean[start:, best]
    if not np.isfinite(kept).any():
        return
    top = max(np.nanmax(kept), -np.inf if level is None else sign * level)
    bottom = np.nanquantile(kept, 0.01)
    ends = sign * mean[-1]
    near = ends > top - 8 * max(top - bottom, 1e-3)
    bottom = min([bottom, *ends[near & np.isfinite(ends)]])
    # Below there is room for the rise before.
    height = max(top - bottom, LEAST_HEIGHT)
    low, high = top - 1.3 * height, top + 0.08 * height
    ax.set_ylim(*sorted((sign * low, sign * high)))
    if hidden := int((np.isfinite(ends) & ~near).sum()):
        ends_outside = "restarts end" if hidden > 1 else "restart ends"
        ax.set_xlabel(f"step ({hidden} {ends_outside} outside the picture)")
