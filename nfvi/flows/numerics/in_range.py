"""Values and gradients kept within the range of floats where exact ones would leave it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["in_range", "product_in_range"]


class _InRange(torch.autograd.Function):
    """The identity, cut at ±``limit`` in both directions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, limit: float) -> Tensor:
        return x.clamp(-limit, limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.limit = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        inside = x.abs() <= ctx.limit
        return torch.where(inside, gradients[0].clamp(-ctx.limit, ctx.limit), 0.0), None


def in_range(x: Tensor) -> Tensor:
    """x, with its values and the gradients that come back through it cut at ±L.

    L is the largest float of the dtype to the power 0.4, about 10¹⁵ in float32. The exact
    derivative of many steps in a row may be larger than any float; cut like this it stays finite
    and keeps its direction coordinate by coordinate.
    """
    return _InRange.apply(x, torch.finfo(x.dtype).max ** 0.4)  # type: ignore[no-any-return,no-untyped-call]


class _ProductInRange(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, matrix: Tensor, limit: float) -> Tensor:
        return (rows.clamp(-limit, limit) @ matrix).clamp(-limit, limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        rows, matrix, ctx.limit = inputs
        ctx.save_for_backward(rows, matrix, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, matrix, product = ctx.saved_tensors
        limit = ctx.limit
        passed = torch.where(product.abs() < limit, gradients[0].clamp(-limit, limit), 0.0)
        by_matrix = rows.clamp(-limit, limit).mT @ passed
        return passed @ matrix.mT, by_matrix.clamp(-limit, limit), None


def product_in_range(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows @ matrix, with values and gradients cut like those of :func:`in_range`.

    Args:
        rows: (n, d).
        matrix: (d, k), whose entries are in range.

    Returns:
        (n, k).
    """
    limit = torch.finfo(rows.dtype).max ** 0.4
    return _ProductInRange.apply(rows, matrix, limit)  # type: ignore[no-any-return,no-untyped-call]
