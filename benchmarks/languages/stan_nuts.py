"""Stan's NUTS on one program, in a process of its own so that its CPU time can be told.

``stan_posteriors.py`` runs it, with a program, its data, a file to write, the number of draws and a
seed. The file gets the draws by variable, the wall seconds of sampling, and the CPU seconds before
it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import stan

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Sample four chains, and write the file."""
    program, data, out, draws, seed = arguments
    model = stan.build(
        Path(program).read_text(encoding="utf-8"),
        data=json.loads(Path(data).read_text(encoding="utf-8")),
        random_seed=int(seed),
    )
    before, wall = time.process_time(), time.perf_counter()
    run = model.sample(num_chains=4, num_samples=int(draws), num_warmup=int(draws))
    wall = time.perf_counter() - wall
    found = {name: _first(run[name]) for name in run}
    np.savez(out, **found, **{"wall time": np.array(wall), "CPU before": np.array(before)})


def _first(values: np.ndarray) -> np.ndarray:
    """PyStan puts the draws last, and gives a scalar a dimension."""
    found = np.moveaxis(values, -1, 0)
    return found[:, 0] if found.shape[1:] == (1,) else found


if __name__ == "__main__":
    main(sys.argv[1:])
