"""Values whose gradient another library has computed with them, in torch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfvi.tracing import opaque

__all__ = ["by_another_library", "known_gradient"]


def by_another_library(function: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
    """log p (n) at points z (n, d) where another library computes it, differentiable once.

    A traced step calls the function as one operation.

    Args:
        function: from points (n, d) to log p (n) and its gradients (n, d); it gives the same for
            the same points.
        z: the points.
    """

    def no_wider(points: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = function(points)
        return _narrowed(value, points.dtype), _narrowed(gradient, points.dtype)

    return known_gradient(z, *opaque(no_wider, z.detach()))


def _narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in a dtype of less precision; as it is where its own is less still."""
    return x.to(dtype) if x.dtype.itemsize > dtype.itemsize else x


def known_gradient(z: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Values that autograd takes for a function of z with this gradient, differentiable once.

    Args:
        z: (n, d), or one point (d,).
        value: (n,), or ().
        gradient: of each value with respect to its own point, of the shape of z.
    """
    return _Known.apply(z, value, gradient)  # type: ignore[no-any-return, no-untyped-call]


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> Any:
        return along.unsqueeze(-1) * ctx.saved_tensors[0], None, None
