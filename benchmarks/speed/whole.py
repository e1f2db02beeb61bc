"""A method from the start of a process to its answer, on one core; its row is the last line of it.

python -m benchmarks.speed.whole '{"kind": "process", "method": "NumPyro BNAF", ...}'
"""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks.speed.clocks import Moment
from benchmarks.speed.methods import FITS, WHOLE

__all__ = ["main", "measured", "since_the_start"]

STARTED = time.perf_counter()
"""When this file is read, which is some 20 ms after the process began."""
DRAWS = 1_000
"""Of each of four chains of NUTS, after as many of warm-up."""


def measured(method: str, target: str, seed: int, ours: Moment) -> dict[str, float]:
    """Wall and CPU seconds of this process up to its answer, and how good that is.

    Args:
        method: a name in ``WHOLE[target]``.
        target: a name in ``WHOLE``.
        seed: of the fit or of the chains.
        ours: what the import of torch, nfvi and the targets took, which a peer does not need.

    Returns:
        ``wall_time``, ``cpu_time``, and ``gap``, log Z − ELBO in nats, or ``ess``.
    """
    if method == "NumPyro NUTS":
        from benchmarks.speed.samplers import SAMPLERS, least_ess

        chains = SAMPLERS["NumPyro"](target, DRAWS)(seed)
        return {**_spent(ours), "ess": least_ess(chains)}
    from benchmarks.speed.problems import PROBLEMS

    fitter = FITS[method].make(PROBLEMS[target], "cpu")
    fitter.run(WHOLE[target][method], seed)
    spent = _spent(Moment(0.0, 0.0) if method.startswith("nfvi") else ours)
    return {**spent, "gap": fitter.gap()}


def since_the_start() -> Moment:
    """Wall and CPU seconds of this process so far."""
    return Moment(time.perf_counter() - STARTED, time.process_time())


def _spent(less: Moment) -> dict[str, float]:
    now = since_the_start().since(less)
    return {"wall_time": now.wall, "cpu_time": now.cpu}


def main() -> None:
    """Measure the job in the first argument, and print its row."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    job = json.loads(sys.argv[1])
    start = Moment.now()
    from benchmarks.posteriors.store import encoded
    from benchmarks.speed.worker import guarded

    if job["method"] == "NumPyro NUTS":
        import benchmarks.speed.samplers  # noqa: F401
    ours = Moment.now().since(start)
    row = guarded(job["method"], lambda: measured(job["method"], job["target"], job["seed"], ours))
    print(json.dumps(encoded(row)), flush=True)


if __name__ == "__main__":
    main()
