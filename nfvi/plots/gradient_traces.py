"""Parameters beside their gradients, flow by flow, as a GradientTracker recorded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from nfvi.plots.smoothing import running
from nfvi.plots.style import CYCLE, AnyFigure, Array, array, new_figure, note, thinned, tidy
from nfvi.utils import check_whole

__all__ = ["gradients"]

FLOWS = 8
COMPONENTS = 12
POINTS = 1000


class TrackerLike(Protocol):
    """T records of R restarts, such as a :class:`nfvi.GradientTracker`.

    ``steps`` is (T), ``parameters`` and ``gradients`` are each (T, R, \\*shape) by names such as
    ``u_0``, and ``norms`` and ``flow_snr`` (T, R, n_flows); ``best`` is the best restart.
    """

    def __len__(self) -> int: ...

    @property
    def best(self) -> int: ...
    @property
    def flows(self) -> Sequence[str]: ...
    @property
    def steps(self) -> Tensor: ...
    @property
    def parameters(self) -> Mapping[str, Tensor]: ...
    @property
    def gradients(self) -> Mapping[str, Tensor]: ...
    @property
    def norms(self) -> Tensor: ...
    @property
    def flow_snr(self) -> Tensor: ...


@dataclass(frozen=True)
class _Trace:
    """One scalar of a flow: the colour key, and its values and gradients at the records (T)."""

    key: str
    values: Array
    gradients: Array


def gradients(
    tracker: TrackerLike,
    *,
    restart: int | None = None,
    flows: Sequence[int] | None = None,
    smooth: int | None = None,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """A row for each flow, parameters left and the gradients used right; below, all flows at once.

    The lower panels have the length of each flow's gradient, and its signal-to-noise ratio, which
    is about 1 where the gradient is noise alone; their colours are those of the row labels. Thin
    lines are single records, thick ones a running mean. Up to 8 flows and 12 components of a
    parameter are drawn, evenly chosen where there are more, and the title counts them.

    Args:
        tracker: with at least two records.
        restart: which restart; default the best one at the last record.
        flows: which flows, numbered from 0 in the order of application.
        smooth: records of the running mean; default 1/50 of them.
        fig: where to draw; default a new figure.

    Returns:
        The figure, with 2 axes a row.

    Raises:
        ValueError: fewer than two records, or a restart or flow that is not there.
    """
    if len(tracker) < 2:
        raise ValueError(f"gradients needs a tracker with two records or more, got {len(tracker)}")
    restarts = tracker.norms.shape[1]
    chosen = tracker.best if restart is None else restart
    check_whole("restart", chosen, 0, restarts - 1)
    rows = _chosen(len(tracker.flows), flows)
    smooth = max(1, len(tracker) // 50) if smooth is None else smooth
    check_whole("smooth", smooth, 1)
    traces = _traces(tracker, chosen, rows)
    fig = new_figure(fig, (8.0, 1.4 + 1.05 * len(rows) + 2.2))
    heights = [1.0] * len(rows) + [1.9]
    axes = fig.subplots(len(rows) + 1, 2, sharex=True, gridspec_kw={"height_ratios": heights})
    colors = _colors(traces)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(rows)))
    steps = array(tracker.steps)
    for row, (left, right) in enumerate(axes[:-1]):
        _row(left, right, steps, traces[row], colors, smooth)
        left.set_ylabel(f"{tracker.flows[rows[row]]} {rows[row]}", color=shades[row])
    axes[0, 0].set_title("parameters", fontsize=10)
    axes[0, 1].set_title("gradients", fontsize=10)
    _lengths(axes[-1, 0], steps, array(tracker.norms[:, chosen])[:, rows], shades, smooth)
    _ratios(axes[-1, 1], steps, array(tracker.flow_snr[:, chosen])[:, rows], shades, smooth)
    for ax in axes[-1]:
        ax.set(xlabel="step", xlim=(0, steps[-1]))
    _head(fig, tracker, f"restart {chosen} of {restarts}" * (restarts > 1), rows, colors)
    return fig


def _chosen(there: int, flows: Sequence[int] | None) -> list[int]:
    if flows is None:
        return list(np.unique(np.linspace(0, there - 1, min(there, FLOWS)).round().astype(int)))
    for flow in flows:
        check_whole("flows", flow, 0, there - 1)
    if not flows:
        raise ValueError("flows= must name at least one flow")
    return list(flows)


def _traces(tracker: TrackerLike, restart: int, flows: Sequence[int]) -> list[list[_Trace]]:
    """The traces of each chosen flow; a component is named only where all can have a colour."""
    values, slopes = tracker.parameters, tracker.gradients
    rows: list[list[_Trace]] = [[] for _ in flows]
    for name in values:
        kind, index = name.rsplit("_", 1)
        if int(index) not in flows:
            continue
        x, g = (array(t[name][:, restart]).reshape(len(tracker), -1) for t in (values, slopes))
        size = x.shape[1]
        for k in np.unique(np.linspace(0, size - 1, min(size, COMPONENTS)).round().astype(int)):
            key = f"{kind}[{k}]" if size > 1 else kind
            rows[flows.index(int(index))].append(_Trace(key, x[:, k], g[:, k]))
    if len({trace.key for row in rows for trace in row}) <= len(CYCLE):
        return rows
    return [[_Trace(t.key.split("[")[0], t.values, t.gradients) for t in row] for row in rows]


def _colors(rows: Sequence[Sequence[_Trace]]) -> dict[str, str]:
    keys = dict.fromkeys(trace.key for row in rows for trace in row)
    return {key: CYCLE[i % len(CYCLE)] for i, key in enumerate(keys)}


def _row(
    left: Axes,
    right: Axes,
    steps: Array,
    traces: Sequence[_Trace],
    colors: dict[str, str],
    smooth: int,
) -> None:
    width = 1.3 if len(traces) <= len(CYCLE) else 0.7
    at = thinned(steps, POINTS)
    right.axhline(0, color="0.6", lw=0.6, zorder=1)
    for trace in traces:
        color = colors[trace.key]
        mean, _ = running(trace.gradients[:, None], smooth)
        left.plot(at, thinned(trace.values, POINTS), color=color, lw=width)
        right.plot(at, thinned(trace.gradients, POINTS), color=color, lw=0.4, alpha=0.3, zorder=2)
        right.plot(at, thinned(mean[:, 0], POINTS), color=color, lw=width, zorder=3)
    everything = np.concatenate([trace.gradients for trace in traces])
    finite = everything[np.isfinite(everything)]
    if len(finite) and (reach := float(np.quantile(np.abs(finite), 0.99))) > 0:
        right.set_ylim(-1.3 * reach, 1.3 * reach)
    for ax in (left, right):
        tidy(ax).tick_params(labelsize=8)


def _lengths(ax: Axes, steps: Array, norms: Array, shades: Array, smooth: int) -> None:
    _by_flow(ax, steps, norms, shades, smooth)
    ax.set_ylabel("gradient length")
    _log_scale(ax, norms)


def _ratios(ax: Axes, steps: Array, ratios: Array, shades: Array, smooth: int) -> None:
    _by_flow(ax, steps, ratios, shades, smooth)
    ax.axhline(1, color="black", lw=1, ls="--", zorder=3)
    ax.set_ylabel("signal / noise")
    note(ax, "broken line: noise alone")
    _log_scale(ax, ratios)


def _by_flow(ax: Axes, steps: Array, values: Array, shades: Array, smooth: int) -> None:
    mean, _ = running(values, smooth)
    at, mean = thinned(steps, POINTS), thinned(mean, POINTS)
    for column, shade in zip(mean.T, shades, strict=True):
        ax.plot(at, column, color=shade, lw=1.2)
    tidy(ax).tick_params(labelsize=8)


def _log_scale(ax: Axes, values: Array) -> None:
    """A logarithmic scale with plain numbers, unless there is nothing over 0 to show on it."""
    if not (values > 0).any():
        return
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _head(
    fig: AnyFigure,
    tracker: TrackerLike,
    restart: str,
    rows: Sequence[int],
    colors: dict[str, str],
) -> None:
    """The title above all rows, and the legend below them."""
    words = [restart] if restart else []
    if len(rows) < len(tracker.flows):
        words.append(f"{len(rows)} of {len(tracker.flows)} flows")
    sizes = {name: value.shape[2:].numel() for name, value in tracker.parameters.items()}
    if any(size > COMPONENTS for size in sizes.values()):
        words.append(f"{COMPONENTS} of {max(sizes.values())} components")
    fig.suptitle("; ".join(["parameters and gradients", *words]), fontsize=11)
    handles = [Line2D([], [], color=color, label=key) for key, color in colors.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
