"""Element-wise affine flows: a shift and a positive scale."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.base import Flow
from nfvi.flows.networks import ContextNetwork
from nfvi.flows.registry import register

__all__ = ["INVERSE_SOFTPLUS_1", "LEAST_RHO", "Loc", "Scale"]

INVERSE_SOFTPLUS_1 = math.log(math.expm1(1.0))
"""The value whose softplus is 1: where a positive parameter starts when it should be 1."""

LEAST_RHO = -30.0
"""What a context may lower ρ to: σ = 10⁻¹³, where 1/σ² still leaves room in float32."""


@register("loc", help="z + μ")
class Loc(Flow):
    """Shift: f(z) = z + μ, log|det| = 0.

    Args:
        dim: d. μ (d) starts at ``jitter`` times standard normal draws; with a context a network
            of it is added to μ. See :class:`Flow` for the other arguments.
    """

    takes_context = True

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        self.loc = nn.Parameter(self.jitter * self.noise(dim))
        self.network = ContextNetwork(self, dim) if self.context_dim else None

    def _mu(self, context: Tensor | None) -> Tensor:
        return self.loc if self.network is None else self.loc + self.network(context)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z + self._mu(context), z.new_zeros(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x - self._mu(context), x.new_zeros(x.shape[:-1])


@register("scale", help="σ ⊙ z, σ = softplus(ρ)")
class Scale(Flow):
    """Positive scale: f(z) = σ ⊙ z with σ = softplus(ρ), log|det| = Σ log σ.

    Args:
        dim: d. ρ (d) starts where σ = 1, moved by ``jitter`` times standard normal draws; with a
            context a network of it is added to ρ. See :class:`Flow` for the other arguments.
    """

    takes_context = True

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        self.rho = nn.Parameter(INVERSE_SOFTPLUS_1 + self.jitter * self.noise(dim))
        self.network = ContextNetwork(self, dim) if self.context_dim else None

    def _sigma(self, context: Tensor | None) -> Tensor:
        rho = self.rho if self.network is None else self.rho + self.network(context)
        # σ ≥ ε² for the dtype's rounding ε: 1/σ² in the gradients stays in range.
        return softplus(rho.clamp_min(2 * math.log(torch.finfo(rho.dtype).eps)))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sigma = self._sigma(context)
        return z * sigma, sigma.log().sum(-1).expand(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        sigma = self._sigma(context)
        return x / sigma, -sigma.log().sum(-1).expand(x.shape[:-1])
