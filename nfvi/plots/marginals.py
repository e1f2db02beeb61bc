"""Scalars of a comparison: each alone, and in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from nfvi.plots.protocols import ComparisonLike, SitesLike, TargetLike
from nfvi.plots.style import COLORS, AnyFigure, Array, array, listed, new_figure, thinned, tidy
from nfvi.utils import Posterior, check_whole, fresh_draws, label_of, scalar_names

__all__ = ["densities", "draw_columns", "pairs"]

MOST = 5
DOTS = 1500
BINS = 40
TAIL = 0.005
ROLES = ("left", "right", "exact")


@runtime_checkable
class RunLike(Protocol):
    """Chains of draws, such as an :class:`nfvi.MCMCRun`."""

    @property
    def kernel(self) -> str: ...
    @property
    def target(self) -> TargetLike: ...

    def sites(self) -> Mapping[str, Tensor]:
        """The draws by site, each (chains, draws, \\*event)."""


@runtime_checkable
class DivergingLike(RunLike, Protocol):
    """Chains that know which of their draws diverged, (chains, draws) bool."""

    @property
    def diverging(self) -> Tensor: ...


class Labelled(Protocol):
    """Draws by site, each (n, \\*event), and what to call them."""

    @property
    def label(self) -> str: ...
    @property
    def sites(self) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class _Sites:
    """The draws of a single fit or run."""

    label: str
    target: TargetLike
    sites: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Column:
    """One scalar: its name, its values on each side, and the limits that are drawn."""

    name: str
    values: tuple[Array, ...]
    limits: tuple[float, float]


def pairs(
    shown: ComparisonLike | RunLike | Posterior,
    *,
    names: Sequence[str] | None = None,
    most: int = MOST,
    draws: int = 4000,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """Marginals on the diagonal and pairs below it, by the names of the sites.

    Draws of a run that diverged are crosses: where they gather, the chains could not go on.

    Args:
        shown: a comparison, both sides of which are drawn in one, or a single fit or run; of any
            dimension, on the constrained scale.
        names: which scalars, such as ``["mu", "theta[3]"]``; default those in which the sides of a
            comparison differ most, and the first ones of a single side. The title names those that
            were left out.
        most: how many to choose, at least 1.
        draws: of a single fit, at least 8.
        fig: where to draw; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: a name that is not among the scalars that vary.
    """
    check_whole("most", most, 1)
    check_whole("draws", draws, 8)
    sides, ranking = _sides_of(shown, draws)
    diverging = shown.diverging.flatten() if isinstance(shown, DivergingLike) else None
    return draw_columns(sides, ranking, sides[0].target.name, names, most, fig, diverging)


def draw_columns(
    sides: Sequence[Labelled],
    ranking: Mapping[str, float],
    subject: str,
    names: Sequence[str] | None,
    most: int,
    fig: AnyFigure | None,
    diverging: Tensor | None = None,
) -> AnyFigure:
    """Marginals and pairs of columns of one to three sides.

    Args:
        sides: draws by site.
        ranking: the scalars that vary, and how much each is worth showing.
        subject: what they are of, for the title.
        names: as for :func:`pairs`, like the next ones.
        most: how many.
        fig: where to draw.
        diverging: which draws (n) of a single side diverged.
    """
    chosen = _chosen(ranking, names, most)
    columns = [_column(name, sides) for name in chosen]
    n = len(columns)
    bad = None if diverging is None or not diverging.any() else diverging.cpu().numpy()
    # One scalar alone gets a picture that is wider than high.
    size = (8.0, 4.5) if n == 1 else (8.0, 2.0 + 5.6 * min(1.0, n / 4))
    fig = new_figure(fig, size)
    axes = fig.subplots(n, n, squeeze=False)
    for i in range(n):
        for j in range(n):
            if j > i:
                axes[i, j].set_axis_off()
            elif i == j:
                densities(
                    axes[i, i], columns[i].values, [s.label for s in sides], columns[i].limits
                )
            else:
                _pair(axes[i, j], columns[j], columns[i], bad)
            _labels(axes[i, j], columns, i, j)
    why = ", those that differ most" if names is None and len(sides) > 1 else ""
    title = f"{subject}: {' and '.join(side.label for side in sides[:2])}"
    if bad is not None:
        title += f", {int(bad.sum()):,} of {len(bad):,} draws diverged (crosses)"
    _explain(fig, axes, len(sides), title, list(ranking), chosen, why)
    return fig


def densities(
    ax: Axes, columns: Sequence[Array], labels: Sequence[str], limits: tuple[float, float]
) -> None:
    """Histograms, at most three, of columns (n) as outlines that keep their share of the mass.

    Draws outside the limits count in the normalisation, though they are not seen.
    """
    least = min(len(values) for values in columns)
    edges = np.linspace(*limits, int(np.clip(2.6 * least ** (1 / 3), 8, BINS)) + 1)
    for values, label, role in zip(columns, labels, ROLES, strict=False):
        heights = np.histogram(values, edges)[0] / (len(values) * (edges[1] - edges[0]))
        exact = role == "exact"
        ax.stairs(
            heights, edges, color=COLORS[role], lw=1.2 if exact else 1.6, label=label,
            ls="--" if exact else "-", fill=False, baseline=0,
        )  # fmt: skip
    tidy(ax).set(xlim=limits)
    ax.set_ylim(bottom=0)
    ax.set_yticks([])


def _sides_of(
    shown: ComparisonLike | RunLike | Posterior, draws: int
) -> tuple[list[SitesLike], dict[str, float]]:
    """The sides, exact draws last, and the scalars that vary with how much they are worth showing.

    That is how far apart the sides are, in sds; all are alike for a single side.
    """
    if isinstance(shown, ComparisonLike):
        exact = [] if shown.exact is None else [shown.exact]
        sides: list[SitesLike] = [shown.left, shown.right, *exact]
        gaps = {r.name: max(abs(r.mean_difference), abs(r.sd_ratio - 1)) for r in shown.table}
        return sides, {name: gap if np.isfinite(gap) else np.inf for name, gap in gaps.items()}
    side = _single(shown, draws)
    scalars = {
        name: array(x.reshape(len(x), -1)[:, k])
        for site, x in side.sites.items()
        for k, name in enumerate(scalar_names(site, tuple(x.shape[1:])))
    }
    return [side], {name: 0.0 for name, x in scalars.items() if not (x == x[0]).all()}


def _single(shown: RunLike | Posterior, draws: int) -> _Sites:
    """All draws of a run, or so many fresh ones of a fit."""
    if isinstance(shown, RunLike):
        sites = {name: x.flatten(0, 1) for name, x in shown.sites().items()}
        return _Sites(shown.kernel, shown.target, sites)
    z = fresh_draws(shown, draws, 0)
    with torch.no_grad():
        return _Sites(label_of(shown), shown.target, shown.target.constrain(z))


def _chosen(ranking: Mapping[str, float], names: Sequence[str] | None, most: int) -> list[str]:
    if not ranking:
        raise ValueError("every scalar is constant: there is nothing to draw")
    if names is None:
        kept = sorted(ranking, key=lambda name: -ranking[name])[:most]
        return [name for name in ranking if name in kept]
    unknown = [name for name in names if name not in ranking]
    if unknown or not names:
        wrong = f"no scalar {listed(unknown)}" if unknown else "names= is empty"
        raise ValueError(f"{wrong}; there are {listed(list(ranking), 20)}")
    return list(dict.fromkeys(names))


def _column(name: str, sides: Sequence[Labelled]) -> _Column:
    values = []
    for side in sides:
        for site, x in side.sites.items():
            scalars = scalar_names(site, tuple(x.shape[1:]))
            if name in scalars:
                values.append(array(x.reshape(len(x), -1)[:, scalars.index(name)]))
    ends = np.array([np.nanquantile(v, [TAIL, 1 - TAIL]) for v in values])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 1e-3
    return _Column(name, tuple(values), (low - margin, high + margin))


def _pair(
    ax: Axes,
    across: _Column,
    up: _Column,
    bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None = None,
) -> None:
    """Dots of both sides in a mixed order, so that none hides the other; crosses for bad draws."""
    both = range(min(2, len(up.values)))
    x = [thinned(across.values[k], DOTS) for k in both]
    y = [thinned(up.values[k], DOTS) for k in both]
    colors = np.concatenate([[COLORS[ROLES[k]]] * len(x[k]) for k in both])
    order = np.random.default_rng(0).permutation(len(colors))
    ax.scatter(
        np.concatenate(x)[order], np.concatenate(y)[order], s=3, c=colors[order], alpha=0.35,
        linewidths=0,
    )  # fmt: skip
    if bad is not None:
        right, high = (thinned(column.values[0][bad], DOTS) for column in (across, up))
        ax.scatter(right, high, s=18, marker="x", color=COLORS["right"], linewidths=1.0)
    ax.set(xlim=across.limits, ylim=up.limits)


def _labels(ax: Axes, columns: Sequence[_Column], i: int, j: int) -> None:
    """Names at the left and lower edge alone."""
    n = len(columns)
    ax.tick_params(labelsize=8)
    if i == n - 1:
        ax.set_xlabel(columns[j].name)
    else:
        ax.tick_params(labelbottom=False)
    if j == 0 and i > 0:
        ax.set_ylabel(columns[i].name)
    elif i != j:
        ax.tick_params(labelleft=False)


def _explain(
    fig: AnyFigure,
    axes: np.ndarray[tuple[int, ...], np.dtype[np.object_]],
    count: int,
    title: str,
    known: Sequence[str],
    chosen: Sequence[str],
    why: str,
) -> None:
    """The legend, in the empty corner if there is one, and what was left out."""
    if left_out := [name for name in known if name not in chosen]:
        title += f"\n{len(chosen)} of {len(known)} scalars{why}; left out: {listed(left_out, 6)}"
    fig.suptitle(title, fontsize=11)
    if count > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        place = "best" if len(chosen) == 1 else "upper right"
        legend = axes[0, -1].legend(handles, labels, loc=place, fontsize=9)
        # A long name reaches into the empty panels beside it, and does not widen the last column.
        legend.set_in_layout(len(chosen) < 3)
