"""A row of benchmarks.posteriors about Pyro's NUTS."""

from __future__ import annotations

import torch

from benchmarks.posteriors.accuracy import first_for_good, prefix_bias, sequential_gradients
from benchmarks.posteriors.cases import Case, modes_found
from benchmarks.posteriors.store import Row
from nfvi import MCMCRun, nuts
from nfvi.mcmc import ess, rhat

__all__ = ["nuts_row"]


def nuts_row(case: Case, seed: int, *, draws: int = 1000) -> Row:
    """Four chains of draws after as many of warm-up, in double precision.

    Where the case has its density by sufficient statistics as well, the chains run on that, and
    the row says so: the same draws to rounding, and a wall time that flatters NUTS.

    Raises:
        KeyboardInterrupt: the chains were interrupted.
    """
    run = nuts(
        case.summarised or case.target,
        seed=seed,
        draws=draws,
        warmup=draws,
        dtype=torch.float64,
        progress=False,
    )
    if run.interrupted:
        raise KeyboardInterrupt
    cost = _cost(run)
    if case.summarised is not None:
        cost["density"] = "sufficient statistics"
    return {**cost, **_accuracy(case, run)}


def _cost(run: MCMCRun) -> Row:
    sequential = sequential_gradients(run.draw_gradients, run.gradient_evaluations)
    return {
        "gradient_evaluations": run.gradient_evaluations,
        "sequential_evaluations": round(sequential[-1].item()),
        "wall_time": run.wall_time,
        "divergences": int(run.diverging.sum()),
        "tree_limit_reached": int((run.draw_gradients >= run.max_gradients).sum()),
    }


def _accuracy(case: Case, run: MCMCRun) -> Row:
    flat = run.draws.flatten(0, 1)
    sites = case.target.constrain(flat)
    values = case.reference.scalars(sites)
    chains = values.unflatten(0, run.draws.shape[:2])
    bias = case.reference.bias(sites)
    first = first_for_good(prefix_bias(chains, case.reference.moments).tolist())
    sequential = sequential_gradients(run.draw_gradients, run.gradient_evaluations)
    modes = modes_found(case.target, flat)
    return {
        "b2_worst": bias.worst,
        "b2_average": bias.average,
        "rhat": rhat(chains).max().item(),
        "ess": ess(chains, "bulk").min().item(),
        "draws_to_accuracy": None if first is None else first + 1,
        "to_accuracy": None if first is None else round(sequential[first].item()),
        **({} if modes is None else {"modes": modes[0], "modes_all": modes[1]}),
    }
