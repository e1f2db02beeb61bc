"""The sliced Wasserstein distance between two sets of draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sliced_wasserstein"]

# The mean over them is known to a tenth of their spread, and the cost grows with their number.
DIRECTIONS = 128


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    directions: int = DIRECTIONS,
    generator: torch.Generator | None = None,
) -> float:
    """SW₂(x, y) = (mean over unit θ of W₂(θᵀx, θᵀy)²)^½, W₂² the mean squared gap of sorted draws.

    The θ are the axes of random rotations, so that a shift by δ gives exactly ‖δ‖/√d where the
    number of directions is a multiple of d. Work and memory are O(n (d + log n)) a direction.

    Args:
        x: draws (n, d).
        y: draws (n, d), as many as x.
        directions: the least number of θ; for d below it, whole rotations are used, so that there
            are up to d − 1 more.
        generator: for the rotations, on the CPU; default torch's global one.

    Returns:
        The distance, in the units of x and y: 0 for the same draws in any order.

    Raises:
        ValueError: x and y are not of one shape (n, d).

    Reference:
        Bonneel, Rabin, Peyré, Pfister, "Sliced and Radon Wasserstein barycenters of measures",
        2015.
    """
    if x.dim() != 2 or x.shape != y.shape:
        raise ValueError(
            f"x and y must be of one shape (n, d); got {(*x.shape,)} and {(*y.shape,)}"
        )
    x, y = x.detach().double(), y.detach().double()
    axes = min(x.shape[1], directions)
    rotations = -(-directions // axes)
    total = 0.0
    for _ in range(rotations):
        noise = torch.randn(
            x.shape[1], axes, generator=generator, dtype=torch.float64, device="cpu"
        )
        theta = torch.linalg.qr(noise).Q.to(x.device)
        gap = (x @ theta).sort(0).values - (y @ theta).sort(0).values
        total += float(gap.square().mean())
    return math.sqrt(total / rotations)
