"""Smooth bounds of what a network puts out."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_bound", "soft_bound"]

# e²⁰ = 5e8: the scales of four such layers in a row multiply to less than float32's largest number.
LARGEST = 20.0


def soft_bound(raw: Tensor, bound: float) -> Tensor:
    """bound · tanh(raw / bound): close to raw near 0, and never beyond ±bound."""
    return bound * (raw / bound).tanh()


def check_bound(bound: float) -> None:
    """Check the bound of a log-scale.

    Raises:
        ValueError: it is not a number above 0 and at most 20.
    """
    number = isinstance(bound, int | float) and not isinstance(bound, bool)
    if not number or not 0 < bound <= LARGEST:
        raise ValueError(f"bound={bound!r}: it must be a number above 0 and at most {LARGEST:g}")
