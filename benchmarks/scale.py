"""Draws and rows a second of one fit in one and in several processes.

    python -m benchmarks.scale                       # one and two
    python -m benchmarks.scale --processes 1 2 4 8
    python -m benchmarks.scale --wait                # a target that runs elsewhere
    python -m benchmarks.scale --auto                # seconds of NFVI("auto")

The target costs 5 ms a draw with its gradient, by arithmetic in one thread, or by waiting, as for
a simulator on another machine: that shows what nfvi itself costs. A step has 64 draws.
The data are rows of 10 numbers for maf*3, 16 384 a step. Each process has one thread, and processes
talk by gloo. Start-up and the first steps do not count.
With --auto, a target of 6 dimensions waits for 5 ms for each 64 points, and a climb on it has 100
steps of learned flows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

from benchmarks.environment import describe_environment
from benchmarks.progress import say, with_bar
from nfvi import NFVI, Budget, LogDensity, TrainState
from nfvi.inference import FitArguments, target_trainer
from nfvi.training import Ranks

COST = 0.005
"""Seconds a draw."""
DRAWS, ROWS = 64, 16_384
WARMUP = 5
NUMBERS = 10_000


class Expensive:
    """A normal in two dimensions that takes its time: so many rounds for each draw."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(self, z: Tensor) -> Tensor:
        """Log p (n) of z (n, 2)."""
        rest = z[:, :1] * torch.linspace(0.0, 1e-6, NUMBERS)
        for _ in range(self.rounds):
            rest = rest.sin()
        return -0.5 * z.square().sum(1) + 0.0 * rest.sum(1)


def rounds_of(cost: float) -> int:
    """How many rounds of a draw take so many seconds, with the gradient."""
    target, z = Expensive(20), torch.zeros(DRAWS, 2, requires_grad=True)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        target(z).sum().backward()
        seconds.append(time.perf_counter() - started)
    return max(1, round(20 * DRAWS * cost / min(seconds)))


class Waited:
    """The same normal, for which another machine is waited for."""

    def __call__(self, z: Tensor) -> Tensor:
        """Log p (n) of z (n, 2)."""
        time.sleep(COST * len(z))
        return -0.5 * z.square().sum(1)


class Ridge:
    """A ridge that bends in six dimensions, for which another machine is waited for."""

    waited = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        """Log p (n) of z (n, 6)."""
        self.waited += COST * len(z) / DRAWS
        time.sleep(COST * len(z) / DRAWS)
        return -0.5 * z.square().sum(1) - 0.5 * (z[:, 1] - z[:, 0].square()).square()


class Clock:
    """Notes when steps end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, state: TrainState) -> None:
        """After a step."""
        self.times.append(time.perf_counter())

    def a_second(self, each: int) -> float:
        """How many draws or rows a second, of ``each`` a step."""
        return each * (len(self.times) - 1 - WARMUP) / (self.times[-1] - self.times[WARMUP])


def measure(rank: int, size: int, rounds: int | None, folder: str) -> None:
    """Run both fits in one process of several, and write what the first one finds."""
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    draws, rows = Clock(), Clock()
    target = LogDensity(Waited() if rounds is None else Expensive(rounds), 2)
    how = FitArguments(restarts=1, n_mc=DRAWS, steps=25, compile=False)
    trainer = target_trainer(NFVI("planar*2", seed=0).spec, target, how)
    trainer.ranks = Ranks(None)
    trainer.run([draws])
    x = torch.randn(50_000, 10, generator=torch.Generator().manual_seed(0))
    NFVI("maf*3", seed=0).fit_data(
        x, batch_size=ROWS, epochs=8, compile=False, callbacks=[rows], progress=False
    )
    if rank == 0:
        Path(folder, "found").write_text(f"{draws.a_second(DRAWS)} {rows.a_second(ROWS)}")
    distributed.destroy_process_group()


def climb(rank: int, size: int, _: int | None, folder: str) -> None:
    """Time a climb in one process of several, and write what the first one finds."""
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    ridge, started = Ridge(), time.perf_counter()
    fit = NFVI("auto", seed=0).fit(
        LogDensity(ridge, 6), budget=Budget(steps=100), compile=False, progress=False
    )
    seconds = time.perf_counter() - started
    if rank == 0:
        Path(folder, "found").write_text(f"{seconds} {ridge.waited} {fit.elbo}")
    distributed.destroy_process_group()


def main() -> None:
    """Print a row for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--wait", action="store_true", help="the target waits")
    parser.add_argument("--auto", action="store_true", help="climbs in place of steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_environment())
    if options.auto:
        climbs(options.processes)
        return
    rounds = None if options.wait else rounds_of(COST)
    first: tuple[float, float] | None = None
    print(f"{'processes':>9} {'draws/s':>9} {'':>6} {'rows/s':>9}")
    for size in with_bar(options.processes, "fits", name="{} processes".format):
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(measure, (size, rounds, folder), size)
            draws, rows = map(float, Path(folder, "found").read_text().split())
        first = first or (draws, rows)
        gains = draws / first[0], rows / first[1]
        say(f"{size:>9} {draws:>9.0f} {gains[0]:>5.2f}x {rows:>9.0f} {gains[1]:>5.2f}x")


def climbs(processes: list[int]) -> None:
    """Print the seconds of a climb for each number of processes, and those of waiting."""
    first: tuple[float, float] | None = None
    say(f"{'processes':>9} {'seconds':>9} {'':>6} {'waiting':>9} {'':>6} {'ELBO':>9}")
    for size in with_bar(processes, "climbs", name="{} processes".format):
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(climb, (size, None, folder), size)
            seconds, waited, elbo = map(float, Path(folder, "found").read_text().split())
        first = first or (seconds, waited)
        gains = first[0] / seconds, first[1] / waited
        row = f"{size:>9} {seconds:>9.1f} {gains[0]:>5.2f}x {waited:>9.1f} {gains[1]:>5.2f}x"
        say(f"{row} {elbo:>9.4f}")


if __name__ == "__main__":
    main()
