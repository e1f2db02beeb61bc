"""Safeguarded root finding for the flows whose inverse has no closed form."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["solve_tanh"]

_MAX_STEPS = 200


def solve_tanh(c: Tensor, slope: Tensor) -> Tensor:
    """The root of g(a) = a + (slope − 1) tanh(a) − c, which increases in a.

    Newton's method inside a bracket that shrinks at every step, and bisection wherever Newton
    leaves it or fails to halve it: exact to rounding, also where g is almost flat (slope → 0).

    Args:
        c: right-hand sides, any shape.
        slope: g'(0) > 0, of a shape that broadcasts against ``c``.

    Returns:
        a, of the shape of ``c``; NaN where an input is NaN.
    """
    reach = (slope - 1).abs().expand_as(c)
    low, high = c - reach, c + reach
    a = c.clone()
    for _ in range(_MAX_STEPS):
        h = a.tanh()
        value = a + (slope - 1) * h - c
        low, high = torch.where(value < 0, a, low), torch.where(value > 0, a, high)
        newton = a - value / (h * h + (1 - h * h) * slope)
        middle = low + (high - low) / 2
        inside = (newton > low) & (newton < high) & ((newton - a).abs() < (high - low) / 2)
        moved = torch.where(value == 0, a, torch.where(inside, newton, middle))
        if bool((moved == a).all() | ~torch.isfinite(moved).any()):
            return moved
        a = moved
    return a
