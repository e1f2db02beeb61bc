"""Safeguarded root finding for the flows whose inverse has no closed form.

Newton's method with bisection wherever it leaves the bracket, as in Press, Teukolsky, Vetterling
and Flannery, Numerical recipes, section 9.4, for many roots side by side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["solve_increasing", "solve_tanh"]

# A bracket that halves at every step is down to rounding after some 60 in float64; more are needed
# only for a root that is nearer to 0 than the bracket is wide, by many orders of magnitude.
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
    # The root is within |slope − 1| of c, and at that distance to rounding once tanh saturates;
    # the room beyond lets Newton's first step arrive there.
    reach = 4 * (slope - 1).abs().expand_as(c)
    low, high = c - reach, c + reach
    a, half_eps = c.clone(), torch.finfo(c.dtype).eps / 2
    for _ in range(_MAX_STEPS):
        h = a.tanh()
        bend = (slope - 1) * h
        value = a + bend - c
        # What rounding alone leaves of the equation; a step from there would be noise.
        done = value.abs() <= half_eps * (a.abs() + bend.abs() + c.abs())
        low, high = torch.where(value < 0, a, low), torch.where(value > 0, a, high)
        newton = a - value / (h * h + (1 - h * h) * slope)
        middle = low + (high - low) / 2
        inside = (newton > low) & (newton < high) & ((newton - a).abs() < (high - low) / 2)
        moved = torch.where(done, a, torch.where(inside, newton, middle))
        if bool((moved == a).all() | ~torch.isfinite(moved).any()):
            return moved
        a = moved
    return a


def solve_increasing(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], middle: Tensor, reach: Tensor
) -> Tensor:
    """The root of an increasing function, by Newton's method inside a shrinking bracket.

    Bisection takes over wherever Newton leaves the bracket or fails to halve it.

    Args:
        function: from u (\\*) to value and positive slope there, each (\\*).
        middle: the middle of a bracket (\\*) that holds the root; also where the search starts.
        reach: half the width of the bracket (\\*).

    Returns:
        u (\\*) to rounding; NaN where an input is NaN.
    """
    low, high, u = middle - reach, middle + reach, middle
    for _ in range(_MAX_STEPS):
        value, slope = function(u)
        low, high = torch.where(value < 0, u, low), torch.where(value > 0, u, high)
        newton = u - value / slope
        half = low + (high - low) / 2
        inside = (newton >= low) & (newton <= high) & ((newton - u).abs() < (high - low) / 2)
        moved = torch.where(value == 0, u, torch.where(inside, newton, half))
        # Rounding of the value alone moves the root by a few units in the last place.
        eps = torch.finfo(u.dtype).eps
        settled = (moved - u).abs() <= 2 * eps * u.abs()
        if bool((settled | ~torch.isfinite(moved)).all()):
            return moved
        u = moved
    return u
