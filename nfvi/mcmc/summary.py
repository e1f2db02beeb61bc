"""An MCMC run in words: a table per scalar, and what the diagnostics mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfvi.mcmc.chain_stats import mean_sd_hdi
from nfvi.utils import (
    HDI,
    align,
    card,
    filled,
    folded,
    html_table,
    preformatted,
    scalar_names,
    short,
    to_sd,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("RunReport", "ScalarSummary", "frame_text", "run_html", "scalar_table", "summary_frame"),
    "summary_text",
]

# Recommended by Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021: 400 effective draws of four
# chains are what estimates of R-hat and of Monte Carlo errors need.
RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100
ROWS_SHOWN = 30
HEADER = ["", "mean", "sd", *HDI, "ess_bulk", "ess_tail", "r_hat"]


@dataclass(frozen=True)
class ScalarSummary:
    """One scalar of a site over all chains.

    Attributes:
        name: such as ``theta[3]``.
        mean: of the draws.
        sd: of the draws.
        hdi_low: the lower end of the narrowest interval with 94 % of them.
        hdi_high: its upper end.
        rhat: R-hat.
        ess_bulk: effective draws for the bulk.
        ess_tail: for the tails.
    """

    name: str
    mean: float
    sd: float
    hdi_low: float
    hdi_high: float
    rhat: float
    ess_bulk: float
    ess_tail: float


@dataclass(frozen=True)
class RunReport:
    """What a summary says of a run, in numbers and words; see :class:`~nfvi.mcmc.run.MCMCRun`.

    Attributes:
        kernel: ``"NUTS"`` or ``"HMC"``.
        target: name of what was sampled.
        chains: how many.
        draws: of each chain.
        warmup: draws of warm-up in each chain.
        seed: of the run.
        wall_time: seconds.
        warmup_time: seconds of warm-up, summed over the chains.
        sampling_time: seconds after it, likewise.
        gradient_evaluations: in all chains.
        accept: mean acceptance of each chain.
        step_size: of each chain.
        diverged: draws whose trajectory diverged.
        cut: draws that were cut at ``max_gradients``.
        max_gradients: most gradient evaluations of a draw.
        interrupted: whether there are fewer draws than were asked for.
        table: a row for every scalar.
        shell: whether advice names options of the command line in place of arguments.
    """

    kernel: str
    target: str
    chains: int
    draws: int
    warmup: int
    seed: int
    wall_time: float
    warmup_time: float
    sampling_time: float
    gradient_evaluations: int
    accept: list[float]
    step_size: list[float]
    diverged: int
    cut: int
    max_gradients: int
    interrupted: bool
    table: tuple[ScalarSummary, ...]
    shell: bool = False


def scalar_table(
    sites: Mapping[str, Tensor],
    rhat: Mapping[str, Tensor],
    ess_bulk: Mapping[str, Tensor],
    ess_tail: Mapping[str, Tensor],
) -> tuple[ScalarSummary, ...]:
    """One row for every scalar of sites (chains, draws, \\*event), constant ones left out.

    Args:
        sites: site -> draws.
        rhat: site -> (\\*event), likewise the next two.
        ess_bulk: effective draws for the bulk.
        ess_tail: effective draws for the tails.
    """
    rows = []
    for site, x in sites.items():
        columns = x.detach().double().cpu().reshape(x.shape[0] * x.shape[1], -1).unbind(1)
        checks = torch.stack([s[site].flatten() for s in (rhat, ess_bulk, ess_tail)], 1).tolist()
        for k, name in enumerate(scalar_names(site, tuple(x.shape[2:]))):
            value = columns[k]
            if len(value) > 1 and bool((value == value[0]).all()):
                continue
            rows.append(ScalarSummary(name, *mean_sd_hdi(value), *checks[k]))
    return tuple(rows)


def run_html(run: RunReport) -> str:
    """What a notebook shows: advice on top, a row per scalar, and how the run went folded below."""
    title = f"{run.kernel} on {run.target}: {run.chains} × {run.draws} draws, {run.wall_time:.1f} s"
    whole = folded("all of print(run)", preformatted(summary_text(run)))
    return card(title, " ".join(_advice(run)), html_table(HEADER, _rows(run)), whole)


def summary_frame(rows: Mapping[str, Sequence[float]], checks: Sequence[str]) -> pd.DataFrame:
    """A table for users, by the names that ArviZ has.

    Args:
        rows: of each scalar mean, sd, both ends of the interval, and what ``checks`` names.
        checks: the last columns.
    """
    from nfvi.mcmc.frame import SummaryFrame

    columns = ["mean", "sd", *HDI, *checks]
    return SummaryFrame(list(rows.values()), index=list(rows), columns=columns)


def frame_text(table: pd.DataFrame, most: int) -> str:
    """The first rows of such a table for a terminal, in lines of at most 88 columns."""
    from nfvi.mcmc.frame import shown

    return shown(table, most)


def summary_text(run: RunReport) -> str:
    """How the run went, a table per scalar, and advice."""
    head, advice = (
        "\n".join(line for text in texts for line in filled(text))
        for texts in (_head(run), _advice(run))
    )
    return "\n\n".join([head, _table(run), advice])


def _head(run: RunReport) -> list[str]:
    each = 1e3 * (run.warmup_time + run.sampling_time) / max(1, run.gradient_evaluations)
    return [
        f"{run.kernel} on {run.target}: {run.chains} chain{'s' * (run.chains > 1)} of {run.draws}"
        f" draws after {run.warmup} of warm-up; seed {run.seed}",
        f"{run.wall_time:.1f} s (warm-up {run.warmup_time:.1f}, draws {run.sampling_time:.1f}); "
        f"{run.gradient_evaluations} gradients, {each:.2f} ms each",
        f"acceptance {_numbers(run.accept)}; step size {_numbers(run.step_size)}; "
        f"{run.diverged} of {run.chains * run.draws} draws diverged",
    ]


def _numbers(values: list[float]) -> str:
    """One value a chain, or the range where there are many."""
    if len(values) > 4:
        return f"{short(min(values), 3)} to {short(max(values), 3)}"
    return ", ".join(short(v, 3) for v in values)


def _table(run: RunReport) -> str:
    rows = _rows(run)
    more = len(run.table) - len(rows)
    where = "" if run.shell else " in .table"
    return align(HEADER, rows) + (f"\n... and {more} more{where}" if more else "")


def _rows(run: RunReport) -> list[list[str]]:
    return [
        [r.name, *to_sd((r.mean, r.sd, r.hdi_low, r.hdi_high), r.sd)]
        + ["-" if math.isnan(e) else f"{e:.0f}" for e in (r.ess_bulk, r.ess_tail)]
        + [short(r.rhat)]
        for r in run.table[:ROWS_SHOWN]
    ]


def _advice(run: RunReport) -> list[str]:
    """What the diagnostics say and what to do next, a line each."""
    words = ["Interrupted: these are the draws finished until then."] if run.interrupted else []
    smaller = "A longer --warmup" if run.shell else "Raise target_accept towards 0.99"
    if run.diverged:
        words.append(
            f"{run.diverged} draws diverged: near them the step is too long, and the draws may miss"
            f" a region. {smaller}, or reparametrise (non-centred)."
        )
    dense = "" if run.shell else " mass='dense',"
    if run.cut:
        words.append(
            f"{run.cut} draws were cut at {run.max_gradients} gradients: the step is small beside "
            f"the width of the posterior. Longer warm-up,{dense} or reparametrise."
        )
    worst = max(run.table, key=lambda r: _or(r.rhat, 0.0), default=None)
    if run.chains == 1:
        words.append("One chain gives no R-hat; run two or more.")
    elif worst is not None and _or(worst.rhat, 0.0) > RHAT_LIMIT:
        words.append(
            f"R-hat is up to {short(worst.rhat)} ({worst.name}): the chains disagree. Longer "
            "warm-up and more draws; chains in separate modes stay apart at any length."
        )
    least = min(run.table, key=lambda r: _or(min(r.ess_bulk, r.ess_tail), math.inf), default=None)
    if least is not None and min(least.ess_bulk, least.ess_tail) < ESS_PER_CHAIN * run.chains:
        words.append(
            f"ESS is down to {min(least.ess_bulk, least.ess_tail):.0f} ({least.name}), under "
            f"{ESS_PER_CHAIN} a chain: means and quantiles are rough. More draws."
        )
    return words or [
        "No divergence, R-hat within 1.01, ESS of 100 a chain or more: nothing here speaks against "
        "the draws. R-hat cannot see a mode that no chain has visited."
    ]


def _or(x: float, other: float) -> float:
    return other if math.isnan(x) else x
