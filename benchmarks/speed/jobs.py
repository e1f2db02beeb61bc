"""What benchmarks.speed has to measure, and how each measurement gets a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.posteriors.store import Row, decoded
from benchmarks.speed.methods import FITS, NUTS, STEPS, WHOLE
from benchmarks.speed.problems import PROBLEMS
from benchmarks.speed.sampler_models import SAMPLED

__all__ = ["SIZES", "Job", "jobs_of", "measured"]

SIZES = (100, 10_000, 100_000, 1_000_000)
ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        kind: ``"fit"``, ``"step"``, ``"nuts"`` or ``"process"``.
        method: what is measured, a name in ``methods``.
        target: of a fit or of NUTS; pot1 for steps.
        seed: 1 for the first repeat, and so on.
        size: draws a step, or draws of each chain of NUTS; 0 for fits and whole processes.
        device: ``"cpu"`` or ``"cuda"``.
        seconds: that all fits of a ladder may take together.
    """

    kind: str
    method: str
    target: str
    seed: int
    size: int = 0
    device: str = "cpu"
    seconds: float = 120.0

    def key(self) -> Row:
        """What tells its row apart in the file."""
        words = [self.kind, self.device, *([f"n = {self.size}"] if self.size else [])]
        return {
            "method": self.method,
            "target": self.target,
            "seed": self.seed,
            "settings": ", ".join(words),
        }


def jobs_of(
    only: Sequence[str], repeats: int, device: str, draws: int, seconds: float
) -> Iterator[Job]:
    """All that is asked for, the methods in turns within a repeat.

    Args:
        only: texts, one of which "kind method target" holds.
        repeats: of every measurement.
        device: of fits and steps; chains and whole processes run on the CPU alone.
        draws: of each chain of NUTS.
        seconds: that the fits of a ladder may take together.

    Raises:
        ValueError: none of the measurements has one of the texts.
    """
    unknown = set(only)
    for seed in range(1, repeats + 1):
        jobs = [
            Job("fit", method, problem, seed, device=device, seconds=seconds)
            for problem in PROBLEMS
            for method in FITS
            if FITS[method].takes(problem)
        ]
        jobs += [Job("step", name, "pot1", seed, n, device) for n in SIZES for name in STEPS]
        if device == "cpu":
            jobs += [Job("nuts", name, model, seed, draws) for model in SAMPLED for name in NUTS]
            jobs += [Job("process", name, where, seed) for where in WHOLE for name in WHOLE[where]]
        for job in jobs:
            name = f"{job.kind} {job.method} {job.target}"
            unknown -= {text for text in only if text in name}
            if any(text in name for text in only):
                yield job
        if unknown:
            raise ValueError(f"--only {min(unknown)!r} fits none of the measurements, as {name!r}")


def measured(job: Job, python: str = sys.executable, timeout: float = 1_800.0) -> Row:
    """The row of a job, from a new process with one thread.

    Args:
        job: what is measured.
        python: the interpreter, of an environment that has the library.
        timeout: seconds after which the process is ended.
    """
    place = {"JAX_PLATFORMS": job.device}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, **ONE_THREAD, **place, "PYTHONPATH": paths}
    module = "whole" if job.kind == "process" else "worker"
    command = [python, "-m", f"benchmarks.speed.{module}", json.dumps(asdict(job))]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {**job.key(), "status": "stopped", "error": f"took over {timeout:g} s"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        error = f"the process ended with code {done.returncode}"
        return {**job.key(), "status": "crashed", "error": error}
    found: Row = decoded(json.loads(lines[-1]))
    return {**job.key(), **found}
