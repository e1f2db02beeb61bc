"""One measurement of benchmarks.speed in a process of its own; its row is the last line it prints.

python -m benchmarks.speed.worker '{"kind": "step", "method": "Pyro", ...}'
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.environment import describe_environment
from benchmarks.posteriors.rows import CRASHES
from benchmarks.posteriors.store import Row, encoded
from benchmarks.speed.clocks import medians
from benchmarks.speed.fitter import climb
from benchmarks.speed.jobs import Job
from benchmarks.speed.methods import FITS, PACKAGES, STEPS
from benchmarks.speed.problems import PROBLEMS

__all__ = ["guarded", "main", "row_of"]

TIMED = {100: 200, 10_000: 100, 100_000: 20, 1_000_000: 5}
"""Steps that are timed, by the number of draws."""


def row_of(job: Job) -> Row:
    """What was measured; a library that is missing, or an error, is a row too."""
    return guarded(job.method, lambda: MEASURE[job.kind](job))


def guarded(method: str, measure: Callable[[], Row]) -> Row:
    """What was measured, with the load at its start and where; or why it was not."""
    load = os.getloadavg()[0]
    started = time.perf_counter()
    try:
        found = measure()
    except ImportError as error:
        # Within a package, what is missing is a bug of ours or theirs.
        if error.name is None or error.name.split(".")[0] in ("nfvi", "benchmarks", "models"):
            raise
        return {"status": "not installed", "error": f"{error.name} is not installed"}
    except CRASHES as error:
        return {"status": "crashed", "error": f"{type(error).__name__}: {error}"}
    return {
        "status": "ok",
        **found,
        "load": load,
        "total_time": time.perf_counter() - started,
        "environment": describe_environment(*_packages(method)),
    }


def _packages(method: str) -> tuple[str, ...]:
    return next((names for head, names in PACKAGES.items() if method.startswith(head)), ())


def _fit(job: Job) -> Row:
    problem = PROBLEMS[job.target]
    fitter = FITS[job.method].make(problem, job.device)
    rungs = climb(fitter, min(problem.limits), job.seed, job.seconds)
    return {"rungs": rungs, "cpu_time": sum(rung["cpu_time"] for rung in rungs)}


def _step(job: Job) -> Row:
    times = STEPS[job.method](job.size, TIMED.get(job.size, 20), job.device)
    return {**medians(times), "steps": len(times)}


def _nuts(job: Job) -> Row:
    from benchmarks.speed.samplers import sampler_row

    return sampler_row(job.method, job.target, job.size, job.seed)


MEASURE = {"fit": _fit, "step": _step, "nuts": _nuts}


def main() -> None:
    """Measure the job in the first argument, and print its row."""
    torch.set_num_threads(1)
    row = row_of(Job(**json.loads(sys.argv[1])))
    print(json.dumps(encoded(row)), flush=True)


if __name__ == "__main__":
    main()
