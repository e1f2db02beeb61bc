"""Verification as intervals: each scalar as the guide has it, and where chains took it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes

from nfvi.plots.style import COLORS, legend_below, new_axes, tidy
from nfvi.utils import check_whole

__all__ = ["verification"]

REACH = 4.0
"""Sds to either side that are drawn at most."""


class CheckLike(Protocol):
    """One scalar before and after the chains, such as a ``ScalarCheck``."""

    @property
    def name(self) -> str: ...
    @property
    def mean(self) -> float: ...
    @property
    def moved_mean(self) -> float: ...
    @property
    def sd(self) -> float: ...
    @property
    def moved_sd(self) -> float: ...
    @property
    def passed(self) -> bool: ...


class VerificationLike(Protocol):
    """The checks of all scalars, such as what :meth:`nfvi.Fit.verify` returns."""

    @property
    def checks(self) -> Sequence[CheckLike]: ...


def verification(found: VerificationLike, *, most: int = 20, ax: Axes | None = None) -> Axes:
    """Mean ± sd of each scalar: of the guide's draws, and after short chains from them.

    All are in sds of the chains around their means, so that these are at 0 ± 1. Scalars that are
    proven wrong are named in bold letters and come first.

    Args:
        found: what ``fit.verify()`` returned.
        most: how many scalars, at least 1.
        ax: where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: there is no scalar that varies.
    """
    check_whole("most", most, 1)
    if not found.checks:
        raise ValueError("no scalar varies: there is nothing to draw")
    shown = sorted(found.checks, key=_severity, reverse=True)[:most]
    ax = tidy(new_axes(ax, (8.0, 1.6 + 0.3 * len(shown))))
    rows = np.arange(len(shown))
    scale = [check.moved_sd or 1.0 for check in shown]
    means = [(c.mean - c.moved_mean) / s for c, s in zip(shown, scale, strict=True)]
    widths = [c.sd / s for c, s in zip(shown, scale, strict=True)]
    style: dict[str, Any] = {"fmt": "o", "ms": 4, "capsize": 3, "lw": 1.5}
    ax.errorbar(
        means, rows - 0.14, xerr=widths, color=COLORS["left"], label="the guide, ± sd", **style
    )
    ax.errorbar(
        np.zeros(len(shown)), rows + 0.14, xerr=np.ones(len(shown)), color=COLORS["right"],
        label="after the chains", **style,
    )  # fmt: skip
    ax.axvline(0, color=COLORS["other"], lw=0.8, zorder=0)
    ax.set_yticks(rows, [check.name for check in shown])
    for label, check in zip(ax.get_yticklabels(), shown, strict=True):
        label.set_fontweight("normal" if check.passed else "bold")
    reach = max(abs(m) + w for m, w in zip(means, widths, strict=True))
    side = float(np.clip(1.15 * reach, 1.4, REACH))
    ax.set(xlim=(-side, side), ylim=(len(shown) - 0.5, -0.5))
    ax.set(xlabel="sds of the chains from their mean", title=_title(found.checks, len(shown)))
    legend_below(ax, 2)
    return ax


def _severity(check: CheckLike) -> tuple[bool, float]:
    scale = check.moved_sd or 1.0
    gap = abs(check.mean - check.moved_mean) / scale
    return not check.passed, max(gap, abs(check.sd / scale - 1))


def _title(checks: Sequence[CheckLike], shown: int) -> str:
    wrong = sum(not check.passed for check in checks)
    left_out = f"; {shown} shown" if shown < len(checks) else ""
    return f"{wrong} of {len(checks)} scalars are proven wrong{left_out}"
