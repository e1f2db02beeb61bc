"""What a step of a fit costs in each way it can be run, side by side.

    python -m benchmarks.step                   # about 2 minutes on 2 cores
    python -m benchmarks.step --only planar
    python -m benchmarks.step --device cuda     # captured as well, for small and large steps
    python -m benchmarks.step --inductor        # compiled as well; minutes for each formula

On the CPU, traced steps take turns with steps as they are written, in one process on one thread,
with the defaults of `NFVI.fit` but for the number of steps that are run. The table gives medians of
CPU time a step (draws, loss, gradient, guard, Adam and record), what the first step with its trace
took at most, and whether the two histories are equal to the last bit.

On CUDA, where the host does not wait for the card, a fit of so many steps is timed whole, behind
one that warms up. The table gives wall time a step, how steps were run, and whether the history is
that of the plain steps to the last bit; in a last column the traced loss and gradient alone.
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
from benchmarks.progress import say, with_bar
from models import eight_schools, eight_schools_noncentered, logistic_regression, pot1
from nfvi import NFVI, Callback, Fit, Stop, TrainState, as_target
from nfvi.training.step import TracedStep

ROUNDS, STEPS = 4, 100
CUDA_STEPS, WARM_UP = 300, 60

Compile = Literal["trace", "inductor", False]


@dataclass(frozen=True)
class Case:
    """A formula on a target, with arguments of `fit` beside the defaults."""

    formula: str
    target: Any
    name: str
    options: tuple[tuple[str, Any], ...] = ()


CASES = (
    Case("planar*8", pot1, "pot1"),
    Case("monotone*2", eight_schools_noncentered, "eight schools"),
    Case("realnvp*6", pot1, "pot1"),
    Case("nsf*4", pot1, "pot1"),
    Case("realnvp*6", logistic_regression, "logistic regression"),
    Case("scale-hh*10-loc", eight_schools_noncentered, "eight schools"),
)


def standard(z: torch.Tensor) -> torch.Tensor:
    """A standard normal density."""
    return -0.5 * z.square().sum(-1)


def of_size(formula: str, dim: int, n_mc: int, restarts: int, gradient: str = "total") -> Case:
    """A formula on pot1 or a normal target of so many dimensions."""
    target = pot1 if dim == 2 else as_target(standard, dim=dim)
    options = (("n_mc", n_mc), ("restarts", restarts), ("gradient", gradient))
    name = f"{gradient} d={dim:,} R={restarts} n={n_mc:,}"
    return Case(formula, target, name, options)


CUDA_CASES = (
    *(of_size("planar*8", 2, n, 1) for n in (100, 10_000, 100_000, 1_000_000)),
    *(of_size("planar*8", 2, n, 1, "path") for n in (100, 1_000_000)),
    *(of_size("planar*8", 2, n, 8) for n in (100, 10_000, 100_000)),
    of_size("planar*8", 2, 256, 8, "path"),
    *(of_size("realnvp*6", 10, n, 1) for n in (256, 65_536)),
    *(of_size("monotone*3", 10, n, 1) for n in (256, 16_384)),
    of_size("monotone*3", 10, 256, 1, "path"),
    of_size("nsf*4", 20, 4_096, 1),
    of_size("bnaf", 10, 256, 1),
    of_size("iaf*2", 10, 256, 1),
    of_size("scale-hh*10-loc", 100_000, 64, 1),
    Case("realnvp*4", eight_schools, "eight schools", (("restarts", 1),)),
    Case("scale-loc", logistic_regression, "logistic regression"),
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


def row(case: Case, inductor: bool) -> str:
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
    line = (
        f"{case.formula + ' on ' + case.name:<34}{before:8.2f}{after:8.2f}{before / after:8.1f}"
        f"{max(trace_s):9.1f}  {'yes' if same else 'no':<6}{traced.settings['evaluation']}"
    )
    if not inductor:
        return line
    compiled, each = run(case, "inductor")
    return (
        f"{line}, {compiled.settings['evaluation']} {statistics.median(each[1:]):.2f} ms after"
        f" {each[0] / 1e3:.0f} s"
    )


class Once(Callback):
    """Notes when one step was done."""

    def __init__(self, step: int) -> None:
        self.step, self.at = step, 0.0

    def next_look(self, step: int) -> int:
        """That step, or none."""
        return self.step if step < self.step else 10**9

    def __call__(self, state: TrainState) -> None:
        """Wait for the card, if it is time."""
        if state.step == self.step:
            torch.cuda.synchronize()
            self.at = time.perf_counter()


def timed(case: Case, compile: Compile) -> tuple[Fit, float]:
    """A fit on CUDA, and the milliseconds of each of its steps behind those that warm up."""
    first, last = Once(WARM_UP), Once(WARM_UP + CUDA_STEPS)
    fit = NFVI(case.formula, seed=0, device="cuda").fit(
        case.target,
        steps=WARM_UP + CUDA_STEPS,
        compile=compile,
        callbacks=[first, last],
        progress=False,
        **dict(case.options),
    )
    return fit, 1e3 * (last.at - first.at) / CUDA_STEPS


def traced_alone(fit: Fit) -> str:
    """Milliseconds of the traced loss and gradient of a fitted loop, or why there is no trace."""
    loop = fit._trainer
    batch = loop.objective.draw(loop.ensemble, 0, loop.generator)
    beta, traced = loop.tempering(10**9, loop.ensemble.flat), TracedStep()
    arguments = loop.ensemble, loop.objective, batch, beta
    if traced(*arguments, 0) is None:
        return traced.text
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        traced(*arguments, 0)
    torch.cuda.synchronize()
    return f"{1e3 * (time.perf_counter() - start) / STEPS:.3f}"


def cuda_row(case: Case, inductor: bool) -> str:
    """A line of the table for CUDA."""
    eager, before = timed(case, False)
    captured, after = timed(case, "trace")
    same = torch.equal(captured.history.loss, eager.history.loss)
    line = (
        f"{case.formula + ' ' + case.name:<46}{before:9.3f}{after:10.3f}{before / after:7.1f}  "
        f"{'yes' if same else 'no':<6}{captured.settings['evaluation']:<22}{traced_alone(eager):>9}"
    )
    if not inductor:
        return line
    compiled, ms = timed(case, "inductor")
    return f"{line}  {compiled.settings['evaluation']} {ms:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="formulas that hold this text")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--inductor", action="store_true", help="compiled steps as well")
    given = parser.parse_args()
    on_cuda = given.device == "cuda"
    if on_cuda and not torch.cuda.is_available():
        parser.error("--device cuda: this PyTorch sees no CUDA device")
    torch.set_num_threads(1)
    print(describe_environment())
    if on_cuda:
        print(torch.cuda.get_device_name())
        head = f"{'eager':>9}{'captured':>10}{'ratio':>7}  equal {'evaluation':<22}{'traced':>9}"
        print(f"{'ms a step':<46}{head}")
    else:
        head = f"{'eager':>8}{'traced':>8}{'ratio':>8}{'trace s':>9}  equal evaluation"
        print(f"{'CPU ms a step':<34}{head}")
    cases = [c for c in (CUDA_CASES if on_cuda else CASES) if given.only in c.formula]
    for case in with_bar(cases, "steps", name=lambda case: f"{case.formula} on {case.name}"):
        say((cuda_row if on_cuda else row)(case, given.inductor))


if __name__ == "__main__":
    main()
