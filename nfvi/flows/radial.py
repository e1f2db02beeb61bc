"""Radial flows, which contract or expand around a point."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.affine import INVERSE_SOFTPLUS_1
from nfvi.flows.base import Flow
from nfvi.flows.registry import register

__all__ = ["Radial"]


@register("radial", help="z + β (z − z₀) / (α + ‖z − z₀‖), α = eᵃ, β = softplus(b) − α")
class Radial(Flow):
    """Contraction or expansion around z₀: f(z) = z + β h (z − z₀) with h = 1/(α + r), r = ‖z − z₀‖.

    α = exp(a) and β = softplus(b) − α > −α make it invertible, and
    log|det| = (d−1) log1p(βh) + log1p(αβh²). The inverse is closed: r solves a quadratic.

    Args:
        dim: d. z_ref = z₀ (d), a and b start where β = 0 and α = 1, moved by ``jitter`` times
            standard normal draws. See :class:`Flow` for the other arguments.

    Reference:
        Rezende and Mohamed, Variational inference with normalizing flows, 2015.
    """

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        self.a = nn.Parameter(self._jitter * self._noise())
        self.b = nn.Parameter(INVERSE_SOFTPLUS_1 + self._jitter * self._noise())
        self.z_ref = nn.Parameter(self._jitter * self._noise(dim))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        alpha, positive = self._coefficients()
        offset = z - self.z_ref
        r = torch.linalg.vector_norm(offset, dim=-1)
        stretch = (positive - alpha) / (alpha + r)
        return z + stretch.unsqueeze(-1) * offset, self._ladj(r, alpha, positive)

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        alpha, positive = self._coefficients()
        offset = x - self.z_ref
        r_x = torch.linalg.vector_norm(offset, dim=-1)
        # r² + (softplus(b) − r_x) r − α r_x = 0; the form without cancellation on either side.
        p = r_x - positive
        q = p.abs() + (p * p + 4 * alpha * r_x).sqrt()
        r = torch.where(p >= 0, q / 2, 2 * alpha * r_x / q)
        shrink = (alpha + r) / (positive + r)
        return self.z_ref + shrink.unsqueeze(-1) * offset, -self._ladj(r, alpha, positive)

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        """α within [ε², 1/ε] and softplus(b) = α + β of at least ε², for ε the dtype's rounding."""
        # So that the squares and quotients of the two, and their derivatives at r = 0, stay in
        # range. α is bounded before the exponential: behind it an overflow would give 0 · ∞.
        eps = torch.finfo(self.a.dtype).eps
        log_alpha = self.a.clamp(2 * math.log(eps), -math.log(eps))
        return log_alpha.exp(), softplus(self.b).clamp_min(eps**2)

    def _ladj(self, r: Tensor, alpha: Tensor, positive: Tensor) -> Tensor:
        # Two forms of log(1 + βh): log1p near the identity, where d − 1 of them add up, and the
        # quotient of positive numbers where 1 + βh is close to 0.
        h = 1 / (alpha + r)
        stretch = (positive - alpha) * h
        across = torch.where(
            stretch > -0.5, stretch.clamp_min(-0.5).log1p(), (r + positive).log() + h.log()
        )
        along = (r * r + 2 * alpha * r + alpha * positive).log() + 2 * h.log()
        return (self.dim - 1) * across + along
