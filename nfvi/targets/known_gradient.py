"""Values whose gradient another library has computed with them, in torch's autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["known_gradient"]


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
