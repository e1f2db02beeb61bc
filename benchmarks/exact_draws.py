"""NUTS through a fitted guide beside plain NUTS, on targets whose geometry is bad.

    python -m benchmarks.exact_draws             # about 5 minutes on 2 cores

Each row is two chains of 500 draws after 500 of warm-up, at the default target acceptance. The
least effective sample size is over all coordinates of unconstrained space; gradients count the
warm-up, but not the fit, whose own number is printed with it.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from benchmarks.environment import describe_environment
from benchmarks.progress import say, with_bar
from models import eight_schools, funnel
from nfvi import NFVI, MCMCRun, nuts
from nfvi.mcmc import ess

CHAINS = {"draws": 500, "warmup": 500, "chains": 2, "seed": 1, "progress": False}


def report(name: str, run: MCMCRun) -> None:
    """One line about a run."""
    worst = float(effective(run.draws).min())
    print(
        f"  {name}: {int(run.diverging.sum())} of {run.diverging.numel()} draws diverged, least ESS"
        f" {worst:.0f} from {run.gradient_evaluations:,} gradients,"
        f" {1e3 * worst / run.gradient_evaluations:.2f} per 1,000; {run.wall_time:.1f} s",
        flush=True,
    )


def effective(draws: Tensor) -> Tensor:
    """Bulk effective sample size of each coordinate (d) of draws (chains, n, d)."""
    return ess(draws, "bulk")


def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of the fit (2000)")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print(describe_environment(), flush=True)
    targets = {"funnel, d = 10": funnel, "eight schools, centred": eight_schools}
    for name, target in with_bar(targets.items(), "exact draws", name=lambda item: item[0]):
        fit = NFVI("realnvp*6", seed=1).fit(target, steps=steps, progress=False)
        say(
            f"{name}: realnvp*6, {steps:,} steps, {fit.gradient_evaluations:,} gradients in"
            f" batches, {fit.wall_time:.1f} s; ELBO {fit.elbo:.3f}, k-hat {fit.khat:.2f}"
        )
        report("NUTS through the guide", fit.nuts(**CHAINS))
        report("plain NUTS", nuts(target, **CHAINS))


if __name__ == "__main__":
    main()
