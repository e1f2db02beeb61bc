"""The record of a fit to data as curves: the rows that train it, and those held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from nfvi.plots.smoothing import band, width_of
from nfvi.plots.style import COLORS, Array, array, legend_below, new_axes, tidy

__all__ = ["DataFitLike", "likelihood_history"]

LABELS = {
    "log_likelihood": "log-likelihood (nats a row)",
    "loss": "loss, −log-likelihood (nats a row)",
    "grad_norm": "gradient length before clipping",
}
POINTS = 2000
MARKED = 60
# Differences of less than this, in nats, are not worth the room.
LEAST_HEIGHT = 0.02


class LooksLike(Protocol):
    """The looks at held-out rows, and which of them was kept."""

    @property
    def steps(self) -> Tensor: ...
    @property
    def log_likelihood(self) -> Tensor: ...
    @property
    def best(self) -> int: ...
    @property
    def best_step(self) -> int: ...


class LikelihoodLike(Protocol):
    """How many rows there are, and their log-likelihood under a Gaussian (nats a row)."""

    @property
    def rows(self) -> int: ...
    @property
    def gaussian(self) -> float: ...


class QualityLike(Protocol):
    """The rows that trained a fit, and those held out."""

    @property
    def train(self) -> LikelihoodLike: ...
    @property
    def held_out(self) -> LikelihoodLike | None: ...


@runtime_checkable
class DataFitLike(Protocol):
    """A fit to data with its record, such as a :class:`nfvi.DensityFit`.

    ``history`` has the quantities of :data:`LABELS`, each (steps, 1); of ``settings`` the
    ``"batch_size"`` is read.
    """

    @property
    def formula(self) -> object: ...
    @property
    def steps(self) -> int: ...
    @property
    def history(self) -> object: ...
    @property
    def validation(self) -> LooksLike | None: ...
    @property
    def quality(self) -> QualityLike: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...


def likelihood_history(
    fit: DataFitLike, quantity: str, smooth: int | None, ax: Axes | None
) -> Axes:
    """The course of a fit to data; see :func:`nfvi.plots.history`."""
    if quantity not in LABELS:
        raise ValueError(
            f"quantity must be one of {', '.join(LABELS)} for a fit to data, got {quantity!r}"
        )
    steps = fit.steps
    smooth = width_of(_epochs(fit) if smooth is None else smooth, steps)
    curves = band(array(getattr(fit.history, quantity)), smooth, log=quantity == "grad_norm")
    mean, upper, lower = (curve[:, 0] for curve in curves)
    ax = tidy(new_axes(ax))
    _training(ax, (mean, upper, lower), smooth)
    if quantity == "grad_norm":
        ax.set_yscale("log")
        _mark(ax, fit)
    else:
        sign = -1.0 if quantity == "loss" else 1.0
        _held_out(ax, fit, sign)
        _limits(ax, fit, sign * mean, sign)
        ax.ticklabel_format(axis="y", useOffset=False)
    ax.set(xlabel="step", ylabel=LABELS[quantity], xlim=(0, max(steps, 2)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"{fit.formula} on data")
    legend_below(ax, 4 if len(ax.get_legend_handles_labels()[0]) == 4 else 3)
    return ax


def _epochs(fit: DataFitLike) -> int | None:
    """About 1/50 of the steps in whole epochs, within which every row counts once."""
    epoch = max(1, round(fit.quality.train.rows / fit.settings["batch_size"]))
    return epoch * max(1, fit.steps // 50 // epoch) if epoch <= fit.steps // 10 else None


def _training(ax: Axes, curves: tuple[Array, Array, Array], smooth: int) -> None:
    mean, upper, lower = curves
    chosen = slice(None, None, max(1, len(mean) // POINTS))
    step = np.arange(1, len(mean) + 1)[chosen]
    if smooth > 1:
        ax.fill_between(
            step, lower[chosen], upper[chosen], color=COLORS["left"], alpha=0.2, lw=0,
            label=f"± sd of one step, over {smooth} steps", zorder=2,
        )  # fmt: skip
    ax.plot(step, mean[chosen], color=COLORS["left"], lw=1.8, label="training rows", zorder=3)


def _held_out(ax: Axes, fit: DataFitLike, sign: float) -> None:
    """The looks at the held-out rows, and the one whose state was kept."""
    looks, held_out = fit.validation, fit.quality.held_out
    if looks is None or held_out is None:
        return
    values = sign * array(looks.log_likelihood)
    marker = "." if len(values) <= MARKED else None
    ax.plot(
        array(looks.steps), np.where(np.isfinite(values), values, np.nan), color=COLORS["right"],
        lw=1.5, marker=marker, label=f"{held_out.rows:,} held-out rows", zorder=4,
    )  # fmt: skip
    _mark(ax, fit, float(values[looks.best]))


def _mark(ax: Axes, fit: DataFitLike, value: float | None = None) -> None:
    """Where the state that was kept was reached."""
    if fit.validation is None:
        return
    best = fit.validation.best_step
    label = f"kept, after step {best:,}"
    if value is None:
        ax.axvline(best, color=COLORS["exact"], lw=1.0, ls=":", label=label, zorder=5)
        return
    ax.axvline(best, color=COLORS["exact"], lw=0.8, ls=":", zorder=1)
    ax.plot(
        [best], [value], ls="", marker="o", ms=7, mfc="none", mec=COLORS["exact"], mew=1.4,
        label=label, zorder=5, clip_on=False,
    )  # fmt: skip


def _limits(ax: Axes, fit: DataFitLike, mean: Array, sign: float) -> None:
    """Limits that hold both curves after their start, and the Gaussian if it is near."""
    shown = mean[min(len(mean) // 10, len(mean) - 1) :]
    looks = fit.validation
    if looks is not None:
        late = array(looks.log_likelihood)[array(looks.steps) > len(mean) // 10]
        shown = np.concatenate([shown, late, array(looks.log_likelihood)[[looks.best]]])
    shown = shown[np.isfinite(shown)]
    if not len(shown):
        return
    top = shown.max()
    height = max(top - np.quantile(shown, 0.02), LEAST_HEIGHT)
    low, high = top - 1.3 * height, top + 0.12 * height
    held_out = fit.quality.held_out
    if held_out is not None and top - 3 * height < held_out.gaussian < top + 3 * height:
        ax.axhline(
            sign * held_out.gaussian, color=COLORS["other"], lw=1.2, ls="--", zorder=1.5,
            label="a Gaussian, on those",
        )  # fmt: skip
        low = min(low, held_out.gaussian - 0.1 * height)
        high = max(high, held_out.gaussian + 0.1 * height)
    ax.set_ylim(*sorted((sign * low, sign * high)))
