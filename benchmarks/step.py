"""What a step of a fit costs traced, beside the same step as it is written.

    python -m benchmarks.step                   # about 2 minutes on 2 cores
    python -m benchmarks.step --only planar

Both fits are in one process on one thread and take turns, with the defaults of `NFVI.fit` but for
the number of steps that are run. The table gives medians of CPU time a step (draws, loss, gradient,
guard, Adam and record), what the first step with its trace took at most, and whether the two
histories are equal to the last bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch

from benchmarks.environment import describe_environment
from models import eight_schools_noncentered, logistic_regression, pot1
from nfvi import NFVI, Fit, Stop, TrainState

ROUNDS, STEPS = 4, 100

Compile = Literal["trace", False]


@dataclass(frozen=True)
class Case:
    """A formula on a target."""

    formula: str
    target: Any
    name: str


CASES = (
    Case("planar*8", pot1, "pot1"),
    Case("monotone*2", eight_schools_noncentered, "eight schools"),
    Case("realnvp*6", pot1, "pot1"),
    Case("nsf*4", pot1, "pot1"),
    Case("realnvp*6", logistic_regression, "logistic regression"),
    Case("scale-hh*10-loc", eight_schools_noncentered, "eight schools"),
)


def run(case: Case, compile: Compile) -> tuple[Fit, list[float]]:
    """The first steps of a fit of default length, and the CPU milliseconds that each took."""
    times = [time.process_time()]

    def watch(state: TrainState) -> Stop | None:
        times.append(time.process_time())
        return Stop("enough") if state.step > STEPS else None

    fit = NFVI(case.formula, seed=0).fit(
        case.target, steps=5_000, compile=compile, callbacks=[watch], progress=False
    )
    return fit, [1e3 * (end - start) for start, end in pairwise(times)]


def row(case: Case) -> str:
    """A line of the table."""
    eager_ms, traced_ms, trace_s = [], [], []
    for _ in range(ROUNDS):
        eager, each = run(case, False)
        eager_ms += each[1:]
        traced, each = run(case, "trace")
        traced_ms += each[1:]
        trace_s.append(each[0] / 1e3)
    before, after = statistics.median(eager_ms), statistics.median(traced_ms)
    same = torch.equal(traced.history.loss, eager.history.loss)
    return (
        f"{case.formula + ' on ' + case.name:<34}{before:8.2f}{after:8.2f}{before / after:8.1f}"
        f"{max(trace_s):9.1f}  {'yes' if same else 'no':<6}{traced.settings['evaluation']}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="formulas that hold this text")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    print(describe_environment())
    head = f"{'eager':>8}{'traced':>8}{'ratio':>8}{'trace s':>9}  equal evaluation"
    print(f"{'CPU ms a step':<34}{head}")
    for case in CASES:
        if only in case.formula:
            print(row(case), flush=True)


if __name__ == "__main__":
    main()
