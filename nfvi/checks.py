"""Checks of arguments that are plain numbers."""

from __future__ import annotations

import math

__all__ = ["check_positive", "check_whole"]


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check that an argument is an integer within bounds.

    Raises:
        ValueError: it is not; the message names the argument, what it got and what it accepts.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        bound = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be an integer {bound}, got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Check that an argument is a positive finite number.

    Raises:
        ValueError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:  # type: ignore[operator]
        raise ValueError(f"{name} must be a positive number, got {value!r}")
