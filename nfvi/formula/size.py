"""How many numbers the flows of a formula hold, found without building them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from nfvi.flows import Call, lookup

__all__ = ["LARGE_DIM", "estimated_size"]

LARGE_DIM = 10_000
"""Dimensions from which flows are measured before they are built: below, most are small."""
_STEP = 64


def estimated_size(layers: Iterable[Call], dim: int, context_dim: int) -> int:
    """The numbers, parameters and others, of flows on R^d.

    Each flow is built in 64, 128 and 192 dimensions: its numbers are a polynomial of degree 2 in
    d at most, which these give. The odd and even layers of couplings may differ by a few.

    Args:
        layers: the flows.
        dim: d.
        context_dim: c.
    """
    return sum(n * _size_of(call, dim, context_dim) for call, n in Counter(layers).items())


def _size_of(call: Call, dim: int, context_dim: int) -> int:
    try:
        small, middle, large = (_built(call, k * _STEP, context_dim) for k in (1, 2, 3))
    except ValueError:  # its options ask for more dimensions, or are wrong: building it will tell
        return 0
    first, second = middle - small, large - 2 * middle + small
    beyond = dim - _STEP
    linear = beyond * first // _STEP
    return small + linear + beyond * (beyond - _STEP) * second // (2 * _STEP**2)


def _built(call: Call, dim: int, context_dim: int) -> int:
    generator = torch.Generator().manual_seed(0)
    cls = lookup(call.name).cls
    flow = cls(dim, **call.kwargs, context_dim=context_dim, generator=generator)
    return sum(tensor.numel() for tensor in (*flow.parameters(), *flow.buffers()))
