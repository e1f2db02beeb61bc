"""How much NFVI("auto") may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nfvi.utils import check_positive, check_whole

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """Limits of a climb; it ends at the first that is reached, with the best guide so far.

    Args:
        seconds: of wall time, over 0; ``None`` for no limit.
        steps: optimiser steps in all.
        evaluations: points at which the target's gradient is taken, in all.

    Raises:
        ValueError: a limit is not a number over 0.
    """

    seconds: float | None = None
    steps: int | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None:
            check_positive("seconds", self.seconds)
        if self.steps is not None:
            check_whole("steps", self.steps, 1)
        if self.evaluations is not None:
            check_whole("evaluations", self.evaluations, 1)

    @classmethod
    def of(cls, value: Budget | float | None) -> Budget:
        """A budget as it is, of so many seconds, or without limits for ``None``.

        Raises:
            ValueError: ``value`` is none of those.
        """
        if isinstance(value, Budget):
            return value
        if value is None:
            return cls()
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ValueError(
                "budget must be seconds over 0, Budget(seconds=, steps=, evaluations=), or None for"
                f" no limit, got {value!r}"
            )
        return cls(seconds=float(value))

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return (self.seconds, self.steps, self.evaluations) != (None, None, None)

    def left(self, seconds: float, steps: int, evaluations: int) -> tuple[float, str]:
        """The share that is spent of the limit that is nearest, and what that has left, in words.

        Args:
            seconds: so far.
            steps: so far.
            evaluations: so far.
        """
        limits = (
            (seconds, self.seconds, "{:,.0f} s left"),
            (steps, self.steps, "{:,.0f} steps left"),
            (evaluations, self.evaluations, "{:,.0f} evaluations left"),
        )
        found = [
            (used / most, text.format(max(most - used, 0)))
            for used, most, text in limits
            if most is not None
        ]
        return max(found, default=(0.0, ""))

    def spent(self, seconds: float, steps: int, evaluations: int, share: float = 1.0) -> str | None:
        """Which limit has been reached, in words; ``None`` if none has.

        Args:
            seconds: so far.
            steps: so far.
            evaluations: so far.
            share: of the seconds that may be spent by now.
        """
        if self.seconds is not None and seconds >= share * self.seconds:
            return f"the budget of {self.seconds:g} seconds was spent"
        if self.steps is not None and steps >= self.steps:
            return f"the budget of {self.steps:,} steps was spent"
        if self.evaluations is not None and evaluations >= self.evaluations:
            return f"the budget of {self.evaluations:,} evaluations was spent"
        return None
