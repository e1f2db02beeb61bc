"""Checks of arguments that are plain numbers, dtypes and devices."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

__all__ = [
    "check_dtype",
    "check_flag",
    "check_positive",
    "check_whole",
    "common_dim",
    "usable_device",
]


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


def check_flag(name: str, value: object) -> None:
    """Check that an argument is ``True`` or ``False``, and not merely as good as one.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_dtype(name: str, value: object) -> None:
    """Check that an argument is a floating-point torch dtype.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise ValueError(
            f"{name} must be a floating-point torch dtype such as torch.float64, got {value!r}"
        )


def common_dim(known: Mapping[str, int | None]) -> int | None:
    """The dimension that all agree on who have one; ``None`` where none has.

    Args:
        known: the dimension by what has it, in words, as in ``{"the target": 2, "dim=": None}``.

    Raises:
        ValueError: they differ.
    """
    dims = {name: dim for name, dim in known.items() if dim is not None}
    if len(set(dims.values())) > 1:
        said = " and ".join(f"{name} has d = {dim}" for name, dim in dims.items())
        raise ValueError(f"the dimensions differ: {said}")
    return next(iter(dims.values()), None)


def usable_device(name: str, value: torch.device | str | None) -> torch.device:
    """The device that an argument names, ``None`` for the CPU, after a trial of it.

    Raises:
        ValueError: there is no such device, or it cannot be used on this machine.
    """
    try:
        device = torch.device("cpu" if value is None else value)
        torch.empty(0, device=device)
    # Without CUDA torch fails with an AssertionError, and without a backend with another.
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name}={value!r} cannot be used here: {reason}") from error
    return device
