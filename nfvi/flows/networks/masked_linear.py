"""The affine layer of the conditioner networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["MaskedLinear"]


class MaskedLinear(nn.Module):
    """y = (M ⊙ W) x + b with a fixed 0-1 mask M, or without one.

    Args:
        noise: source of standard normal draws for the start of W and b.
        inputs: length of x.
        outputs: length of y.
        mask: M (outputs, inputs), or ``None`` for all ones.
        scale: factor of the start, which is else normal with variance 1/fan-in.
    """

    def __init__(
        self,
        noise: Callable[..., Tensor],
        inputs: int,
        outputs: int,
        mask: Tensor | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        weight, bias = noise(outputs, inputs), noise(outputs)
        fan_in = torch.full_like(bias, inputs)
        if mask is not None:
            mask = mask.to(bias)
            fan_in = mask.sum(1)
            weight = weight * mask
        size = scale * fan_in.clamp_min(1).rsqrt()
        self.weight = nn.Parameter(weight * size.unsqueeze(1))
        self.bias = nn.Parameter(bias * size)
        # A matter of the sizes alone, so no part of the state; and the same for all restarts.
        self.register_buffer("mask", mask, persistent=False)

    mask: Tensor | None

    def masked(self) -> Tensor:
        """M ⊙ W (outputs, inputs)."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.masked(), self.bias)

    def across(self, x: Tensor) -> Tensor:
        """y (outputs, n) for x (inputs, n): draws are the last axis."""
        return self.masked() @ x + self.bias.unsqueeze(-1)
