"""An MCMC run in words: a table per scalar, and what the diagnostics mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfvi.mcmc.chain_stats import scalar_names
from nfvi.utils import align, short, to_sd

if TYPE_CHECKING:
    from nfvi.mcmc.run import MCMCRun

__all__ = ["ScalarSummary", "scalar_table", "summary_text"]

# Recommended by Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021: 400 effective draws of four
# chains are what estimates of R-hat and of Monte Carlo errors need.
RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100
ROWS_SHOWN = 30


@dataclass(frozen=True)
class ScalarSummary:
    """One scalar of a site over all chains: moments, quantiles, R-hat, effective draws."""

    name: str
    mean: float
    sd: float
    q5: float
    q50: float
    q95: float
    rhat: float
    ess_bulk: float
    ess_tail: float


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
            sd = float(value.std()) if len(value) > 1 else math.nan
            quantiles = torch.quantile(value, value.new_tensor([0.05, 0.5, 0.95])).tolist()
            rows.append(ScalarSummary(name, float(value.mean()), sd, *quantiles, *checks[k]))
    return tuple(rows)


def summary_text(run: MCMCRun) -> str:
    """How the run went, a table per scalar, and advice."""
    return "\n".join([*_head(run), "", _table(run), "", *_advice(run)])


def _head(run: MCMCRun) -> list[str]:
    chains, draws, _ = run.draws.shape
    each = 1e3 * (run.warmup_time + run.sampling_time) / max(1, run.gradient_evaluations)
    return [
        f"{run.kernel} on {run.target.name}: {chains} chain{'s' * (chains > 1)} of {draws} draws "
        f"after {run.warmup} of warm-up; seed {run.seed}",
        f"{run.wall_time:.1f} s (warm-up {run.warmup_time:.1f}, draws {run.sampling_time:.1f}); "
        f"{run.gradient_evaluations} gradients, {each:.2f} ms each",
        f"acceptance {_numbers(run.accept)}; step size {_numbers(run.step_size)}; "
        f"{int(run.diverging.sum())} of {run.diverging.numel()} draws diverged",
    ]


def _numbers(x: Tensor) -> str:
    """One value a chain, or the range where there are many."""
    values = x.tolist()
    if len(values) > 4:
        return f"{short(min(values), 3)} to {short(max(values), 3)}"
    return ", ".join(short(v, 3) for v in values)


def _table(run: MCMCRun) -> str:
    header = ["", "mean", "sd", "5%", "50%", "95%", "R-hat", "ESS bulk", "ESS tail"]
    rows = [
        [r.name, *to_sd((r.mean, r.sd, r.q5, r.q50, r.q95), r.sd), short(r.rhat)]
        + ["-" if math.isnan(e) else f"{e:.0f}" for e in (r.ess_bulk, r.ess_tail)]
        for r in run.table[:ROWS_SHOWN]
    ]
    more = len(run.table) - len(rows)
    return align(header, rows) + (f"\n... and {more} more in .table" if more else "")


def _advice(run: MCMCRun) -> list[str]:
    """What the diagnostics say and what to do next, a line each."""
    chains = run.draws.shape[0]
    words = ["Interrupted: these are the draws finished until then."] if run.interrupted else []
    if n := int(run.diverging.sum()):
        words.append(
            f"{n} draws diverged: near them the step is too long, and the draws may miss a region. "
            "Raise target_accept towards 0.99, or reparametrise (non-centred)."
        )
    if n := int((run.draw_gradients >= run.max_gradients).sum()):
        words.append(
            f"{n} draws were cut at {run.max_gradients} gradients: the step is small beside the "
            "width of the posterior. Longer warm-up, mass='dense', or reparametrise."
        )
    worst = max(run.table, key=lambda r: _or(r.rhat, 0.0), default=None)
    if chains == 1:
        words.append("One chain gives no R-hat; run two or more.")
    elif worst is not None and _or(worst.rhat, 0.0) > RHAT_LIMIT:
        words.append(
            f"R-hat is up to {short(worst.rhat)} ({worst.name}): the chains disagree. Longer "
            "warm-up and more draws; chains in separate modes stay apart at any length."
        )
    least = min(run.table, key=lambda r: _or(min(r.ess_bulk, r.ess_tail), math.inf), default=None)
    if least is not None and min(least.ess_bulk, least.ess_tail) < ESS_PER_CHAIN * chains:
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
