"""Multiples of a number of steps."""

from __future__ import annotations

__all__ = ["next_multiple"]


def next_multiple(step: int, every: int) -> int:
    """The first multiple of ``every`` after a step.

    Example:
        >>> next_multiple(7, 5), next_multiple(10, 5)
        (10, 15)
    """
    return step - step % every + every
