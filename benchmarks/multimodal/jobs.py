"""What benchmarks.multimodal has to measure, row by row, in one process or in several."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.environment import describe_environment
from benchmarks.multimodal.catalogue import SMALL
from benchmarks.multimodal.literature import FROM_FILES, LITERATURE
from benchmarks.multimodal.nested import LIVE_POINTS, nested_row
from benchmarks.multimodal.page import DEFAULT
from benchmarks.multimodal.problem import Problem
from benchmarks.multimodal.rows import fit_row
from benchmarks.posteriors.rows import CRASHES
from benchmarks.posteriors.store import Row

__all__ = ["Job", "make_problem", "measure", "rows_of"]


@dataclass(frozen=True)
class Job:
    """One row to be measured.

    Attributes:
        method: ``"fit"`` or ``"nested"``.
        target: its name.
        seed: of the fit or of the sampler.
        budget: seconds for the fit; ``None`` for no limit.
        data: folder of the data.
        live_points: of nested sampling.
    """

    method: str
    target: str
    seed: int
    budget: float | None = None
    data: Path | None = None
    live_points: int = LIVE_POINTS

    def key(self) -> Row:
        """What tells its row apart in the file."""
        row = {"method": self.method, "target": self.target, "seed": self.seed}
        if self.method == "nested":
            more = self.live_points != LIVE_POINTS
            return {**row, "settings": f"{self.live_points} live points"} if more else row
        limit = "" if self.budget is None else f", budget {self.budget:g} s"
        return {**row, "settings": DEFAULT + limit}


def make_problem(name: str, data: Path | None = None) -> Problem:
    """A target by its name, with what is known of it.

    Args:
        name: of the catalogue or of the literature.
        data: folder of the data, for those that need one.

    Raises:
        KeyError: there is no such target, or it needs a folder.
    """
    makers = {**SMALL, **LITERATURE}
    if data is not None and name in FROM_FILES:
        return FROM_FILES[name](data).named(name)
    return makers[name]().named(name)


def measure(job: Job) -> Row:
    """The row of a job; one that ends in an error is a row too, and counts as a crash."""
    started = time.perf_counter()
    with_packages = ("dynesty",) if job.method == "nested" else ()
    row = {**job.key(), "environment": describe_environment(*with_packages)}
    try:
        problem = make_problem(job.target, job.data)
        found = (
            nested_row(problem, job.seed, job.live_points)
            if job.method == "nested"
            else fit_row(problem, job.seed, job.budget)
        )
        return {**row, "status": "ok", **found, "total_time": time.perf_counter() - started}
    except CRASHES as error:
        traceback.print_exc()
        return {**row, "status": "crashed", "error": f"{type(error).__name__}: {error}"}


def rows_of(jobs: Sequence[Job], processes: int) -> Iterator[Row]:
    """The rows of jobs, as they are done.

    Args:
        jobs: what is to be measured.
        processes: side by side, each with one thread.
    """
    if processes <= 1:
        yield from map(measure, jobs)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start_worker)
    try:
        for future in as_completed([pool.submit(measure, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread, and Ctrl-C is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
