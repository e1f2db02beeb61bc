"""Wall and CPU seconds of a step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["WARMUP", "Moment", "medians", "timed"]

WARMUP = 5
"""Steps before those that count."""


@dataclass(frozen=True)
class Moment:
    """What two clocks show, or how far they went.

    Attributes:
        wall: seconds.
        cpu: seconds of all threads of the process.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        """What they show."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Moment) -> Moment:
        """How far they went."""
        return Moment(self.wall - start.wall, self.cpu - start.cpu)


def timed(step: Callable[[], object], steps: int) -> list[Moment]:
    """What each of so many steps took, after five that do not count.

    Args:
        step: makes a step, and returns when it is done.
        steps: that count.
    """
    found = []
    for _ in range(steps + WARMUP):
        start = Moment.now()
        step()
        found.append(Moment.now().since(start))
    return found[WARMUP:]


def medians(times: Sequence[Moment]) -> dict[str, float]:
    """The medians in milliseconds: ``ms`` of wall time, and ``cpu_ms``."""
    return {
        "ms": 1e3 * statistics.median(one.wall for one in times),
        "cpu_ms": 1e3 * statistics.median(one.cpu for one in times),
    }
