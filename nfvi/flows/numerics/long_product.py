"""Products of thin matrices over a long sum, in pieces where a GPU does badly with the whole.

The gradient of a small matrix by many draws is such a product: (8 × n)(n × 8). Of a batch of them a
library gives each to few units of a GPU, which then take turns along the whole sum. In pieces of
2 000, four of them for eight restarts and 10⁵ draws took 0.24 ms on an H100, and 9.2 ms without.

A single product is spread over the GPU by the library itself. Whole, a captured step of one restart
took 0.49 and 0.83 ms for 10⁴ and 10⁵ draws; in pieces 0.62 and 1.0. For 10⁶ pieces gain again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nfvi.flows.numerics.batching import batch_first

__all__ = ["affine_rows", "in_pieces", "is_long", "long_product"]

# On an H100: see above. Half or twice as long was not tried.
PIECE = 2_000
# Not measured: with four pieces there is something to gain, and wider ones keep a GPU busy.
LONG, THIN = 4 * PIECE, 64
# Between the two that were measured.
LONG_ALONE = 500_000


def is_long(a: Tensor, b: Tensor) -> bool:
    """Whether aᵀ b, of a (\\*, n, k) and b (\\*, n, m), is to be summed in pieces."""
    thin = max(a.shape[-1], b.shape[-1]) <= THIN
    least = LONG_ALONE if _is_single(a) else LONG
    return a.device.type == "cuda" and thin and a.shape[-2] >= least


def _is_single(a: Tensor) -> bool:
    """Whether it is one matrix, and no batch of them."""
    return math.prod(a.shape[:-2]) == 1


def long_product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b (\\*, k, m) of a (\\*, n, k) and b (\\*, n, m).

    Under ``vmap`` it cannot be seen how many products there are: call it below, in a rule for it.
    """
    return in_pieces(a, b) if is_long(a, b) else a.mT @ b


def in_pieces(a: Tensor, b: Tensor, piece: int = PIECE) -> Tensor:
    """The same as a sum over pieces of n, whatever the device."""
    count = a.shape[-2] // piece
    whole = count * piece
    left, right = (x.narrow(-2, 0, whole).unflatten(-2, (count, piece)) for x in (a, b))
    total: Tensor = (left.mT @ right).sum(-3)
    rest = a.shape[-2] - whole
    if rest:
        total = total + a.narrow(-2, whole, rest).mT @ b.narrow(-2, whole, rest)
    return total


def affine_rows(start: Tensor, rows: Tensor, matrix: Tensor, alpha: float = 1.0) -> Tensor:
    """start + alpha · rows @ matrix, whose gradient by the matrix is a :func:`long_product`.

    Args:
        start: (m) or (n, m).
        rows: (n, k).
        matrix: (k, m).
        alpha: a factor.

    Returns:
        (n, m).
    """
    if not _may_be_long(rows):
        return torch.addmm(start, rows, matrix, alpha=alpha)
    start = start.reshape(-1, start.shape[-1])
    return _AffineRows.apply(start, rows, matrix, alpha)  # type: ignore[no-any-return,no-untyped-call]


def _may_be_long(rows: Tensor) -> bool:
    """Whether :func:`is_long` may say so where a batch can be seen, which here it cannot."""
    return rows.device.type == "cuda" and rows.shape[-2] >= LONG


class _AffineRows(torch.autograd.Function):
    """With any dimensions before those of :func:`affine_rows`; ``start`` is (\\*, 1 or n, m)."""

    @staticmethod
    def forward(start: Tensor, rows: Tensor, matrix: Tensor, alpha: float) -> Tensor:
        if rows.dim() == 2:
            return torch.addmm(start, rows, matrix, alpha=alpha)
        return torch.add(start, rows @ matrix, alpha=alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        start, rows, matrix, ctx.alpha = inputs
        ctx.one_start = start.shape[-2] == 1
        ctx.save_for_backward(rows, matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, matrix = ctx.saved_tensors
        (gradient,) = gradients
        by_start = gradient.sum(-2, keepdim=True) if ctx.one_start else gradient
        by_rows = ctx.alpha * (gradient @ matrix.mT)
        return by_start, by_rows, ctx.alpha * long_product(rows, gradient), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        *tensors, alpha = inputs
        batched = batch_first(info, in_dims[:-1], tuple(tensors))
        return _AffineRows.apply(*batched, alpha), 0  # type: ignore[no-untyped-call]
