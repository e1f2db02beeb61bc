"""The posteriors of posteriordb in Stan: programs, targets, and Stan's own NUTS on them.

The programs have the densities of posteriordb's own, with all constants, so that a log evidence can
be compared with that of the Pyro form. Loops are loops.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.posteriors.cases import Case, case
from benchmarks.posteriors.store import Row
from models.posteriordb import POSTERIORS
from nfvi import StanTarget

__all__ = ["PROGRAMS", "children_cpu", "stan_case", "stan_nuts_row"]

FOLDER = Path(__file__).with_name("stan")
PROGRAMS = {name: FOLDER / f"{name}.stan" for name in POSTERIORS}
"""The program of each posterior."""


def children_cpu() -> float:
    """CPU seconds of the processes that this one has started and seen end, as compilers."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def data_of(name: str, database: str) -> dict[str, Any]:
    """What the database gives the program."""
    from posteriordb import PosteriorDatabase

    values: dict[str, Any] = PosteriorDatabase(database).posterior(name).data.values()
    return values


def stan_case(name: str, database: str) -> tuple[Case, Row]:
    """The case of a posterior with its Stan form as the target, and what its build took.

    Args:
        name: of posteriordb.
        database: folder of posteriordb's database.

    Returns:
        The case, and the wall and CPU seconds until there was a target: of a build, or of the
        opening of what was built before.
    """
    wall, cpu = time.perf_counter(), time.process_time() + children_cpu()
    target = StanTarget(PROGRAMS[name], data_of(name, database), name=name)
    built = {
        "build_wall_time": time.perf_counter() - wall,
        "build_cpu_time": time.process_time() + children_cpu() - cpu,
    }
    return replace(case(name, database), target=target, summarised=None), built


def stan_nuts_row(name: str, database: str, draws: int, seed: int) -> Row:
    """Stan's NUTS by PyStan: four chains of draws after as many of warm-up; times and b².

    It runs in a process of its own, ``stan_nuts.py``, whose CPU time is counted from its first
    draw.
    """
    before = children_cpu()
    with TemporaryDirectory() as folder:
        given, out = Path(folder) / "data.json", Path(folder) / "draws.npz"
        given.write_text(json.dumps(data_of(name, database)), encoding="utf-8")
        run = [sys.executable, "-W", "ignore", "-m", "benchmarks.languages.stan_nuts"]
        subprocess.run([*run, PROGRAMS[name], given, out, str(draws), str(seed)], check=True)
        with np.load(out) as found:
            arrays = {key: torch.from_numpy(found[key]) for key in found.files}
    wall, started = (arrays.pop(key).item() for key in ("wall time", "CPU before"))
    bias = case(name, database).reference.bias(arrays)
    return {
        "wall_time": wall,
        "cpu_time": children_cpu() - before - started,
        "draws": 4 * draws,
        "b2_worst": bias.worst,
        "b2_average": bias.average,
    }
