"""Fixed permutations of the coordinates: a random one, and the reversal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nfvi.flows.base import Flow
from nfvi.flows.registry import register

__all__ = ["Permutation", "Reverse"]


@register("perm", help="z_π, π a fixed random permutation")
class Permutation(Flow):
    """Fixed random permutation: f(z)_i = z_π(i), log|det| = 0.

    Args:
        dim: d. π (d) is drawn evenly from the permutations that leave no coordinate in its
            place, and saved with the state; nothing is learned. In one dimension it is the
            identity. See :class:`Flow` for the other arguments.
    """

    permutes = True
    order: Tensor

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        if self._kind["device"] == "meta":
            self.register_buffer("order", torch.empty(dim, dtype=torch.long, device="meta"))
            return
        # On the generator's own device, which may be another one.
        device = self._generator.device if self._generator is not None else "cpu"
        place = torch.arange(dim, device=device)
        order = torch.randperm(dim, generator=self._generator, device=device)
        # About one permutation in e is without a fixed point.
        while dim > 1 and bool((order == place).any()):
            order = torch.randperm(dim, generator=self._generator, device=device)
        self.register_buffer("order", order.cpu())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z[..., self.order], z.new_zeros(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x[..., self.order.argsort()], x.new_zeros(x.shape[:-1])


@register("reverse", help="z_d, …, z_1")
class Reverse(Flow):
    """Reversal of the coordinates: f(z)_i = z_(d + 1 − i), log|det| = 0.

    Args:
        dim: d. There is nothing to learn. See :class:`Flow` for the other arguments.
    """

    permutes = True

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.flip(-1), z.new_zeros(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x.flip(-1), x.new_zeros(x.shape[:-1])
