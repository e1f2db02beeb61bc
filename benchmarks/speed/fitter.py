"""What a library has to offer to be timed, and how long it takes to come near a target."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.posteriors.store import Row
from benchmarks.speed.compiling import Compiling

__all__ = ["LADDER", "Fitter", "climb", "reached"]

LADDER = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)
"""Steps of one fit after the other, each with a schedule of its own."""


class Fitter(Protocol):
    """A formula of a library on a problem."""

    lengths: Sequence[int | None]
    """Steps to try, in this order; ``None`` where a fit chooses them."""

    def run(self, steps: int | None, seed: int) -> None:
        """A whole fit, to its end."""

    def gap(self) -> float:
        """log Z − ELBO of that fit, nats."""


def climb(fitter: Fitter, limit: float, seed: int, seconds: float) -> list[Row]:
    """Fits of more and more steps until one comes near enough, or would take too long.

    Args:
        fitter: what is timed.
        limit: log Z − ELBO at which to stop, nats.
        seed: of every fit.
        seconds: of wall time for all fits together; none begins that is expected to end later.

    Returns:
        A row for each fit: steps, gap, wall and CPU seconds, and those of the wall time in which
        JAX compiled.
    """
    rungs: list[Row] = []
    started = time.perf_counter()
    for steps in fitter.lengths:
        spent = time.perf_counter() - started
        if rungs and spent + 2 * rungs[-1]["wall_time"] > seconds:
            break
        rung = _timed(fitter, steps, seed)
        rungs.append(rung)
        if rung["gap"] <= limit:
            break
    return rungs


def _timed(fitter: Fitter, steps: int | None, seed: int) -> Row:
    with Compiling() as compiling:
        wall, cpu = time.perf_counter(), time.process_time()
        fitter.run(steps, seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gap = fitter.gap()
    return {
        "steps": steps,
        "gap": gap if math.isfinite(gap) else math.inf,
        "wall_time": wall,
        "cpu_time": cpu,
        "compiling": compiling.seconds,
    }


def reached(rungs: Sequence[Row], limit: float) -> dict[str, Any] | None:
    """What the first fit that is near enough took; ``None`` where none is.

    Returns:
        ``steps``; ``warm``, seconds without compiling; ``cold``, with it, where a fit before had
        compiled already as if it had not; ``cpu_time``, of this fit as it was run.
    """
    found = next((rung for rung in rungs if rung["gap"] <= limit), None)
    if found is None:
        return None
    warm = found["wall_time"] - found["compiling"]
    return {
        "steps": found["steps"],
        "warm": warm,
        "cold": warm + max(rung["compiling"] for rung in rungs),
        "cpu_time": found["cpu_time"],
    }
