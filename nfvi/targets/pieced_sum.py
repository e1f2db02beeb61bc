"""A sum of many terms at many points, with its gradient, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfvi.utils import kept_at_once

__all__ = ["DRAWS", "PIECE", "Piece", "in_pieces", "pieced_sum", "wide_dtype"]

Piece: TypeAlias = Callable[[Tensor], Tensor]
"""From points z (n, d) to values (n)."""
Pieces: TypeAlias = Callable[[], Iterable[Piece]]
# Numbers that a piece of a sum over all rows writes: 128 MB in float64. Of 10⁶ rows and 50 columns
# four times as many save nothing and take four times the memory.
PIECE = 2**24
# Draws of a piece: enough that its rows are read and cast for many.
DRAWS = 1_024


def pieced_sum(pieces: Pieces, z: Tensor, at_once: int = DRAWS) -> Tensor:
    """Σ piece(z) at points z (n, d): (n,), in float64, differentiable once.

    Where a gradient is wanted it is taken with the value, so that no graph outlives its piece, and
    what a piece reads is read once for both.

    Args:
        pieces: makes the pieces anew.
        z: the points.
        at_once: how many of them a piece is given.
    """
    if torch.is_grad_enabled() and z.requires_grad:
        return _Summed.apply(z, pieces, at_once)  # type: ignore[no-any-return, no-untyped-call]
    return _sum(pieces, z.detach(), at_once, slopes=False)[0]


def in_pieces(evaluate: Piece, numbers: float) -> Piece:
    """A log-density piece by piece of the points where they are many, and once differentiable.

    Args:
        evaluate: from points z (n, d) to values (n).
        numbers: that it writes for one point.
    """

    def some(z: Tensor) -> Tensor:
        count = kept_at_once(numbers, len(z), z.device)
        return evaluate(z) if count >= len(z) else pieced_sum(lambda: [evaluate], z, count).to(z)

    return some


def wide_dtype(z: Tensor) -> torch.dtype:
    """The dtype of a sum over many rows, of which float32 would lose the last digits."""
    return torch.float32 if z.device.type == "mps" else torch.float64


class _Summed(torch.autograd.Function):
    """The sum, which has its gradient from the same pieces."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pieces: Pieces, at_once: int) -> Tensor:
        value, slope = _sum(pieces, z.detach(), at_once, slopes=True)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return (along.unsqueeze(1) * slope).to(slope.dtype), None, None


def _sum(pieces: Pieces, z: Tensor, at_once: int, *, slopes: bool) -> tuple[Tensor, Tensor]:
    """Value (n), float64, and gradient (n, d); the latter 0 where it is not wanted."""
    value = z.new_zeros(len(z), dtype=wide_dtype(z))
    slope = torch.zeros_like(z, dtype=value.dtype)
    # Reads values, so that no trace unrolls the pieces and keeps a copy of all rows.
    if not bool(z.isfinite().any()):
        return value * torch.nan, slope.to(z.dtype)
    for piece in pieces():
        for start in range(0, len(z), at_once):
            part = slice(start, start + at_once)
            value[part] += _at(piece, z[part], slope[part] if slopes else None)
    return value, slope.to(z.dtype)


def _at(piece: Piece, z: Tensor, slope: Tensor | None) -> Tensor:
    """The values of a piece (n), whose gradient is added to ``slope``."""
    with torch.set_grad_enabled(slope is not None):
        leaf = z if slope is None else z.clone().requires_grad_()
        values = piece(leaf)
        if slope is not None and values.requires_grad:
            slope += torch.autograd.grad(values.sum(), leaf)[0]
    return values.detach()
