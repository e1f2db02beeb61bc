"""Radial flows, which contract or expand around a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.affine import INVERSE_SOFTPLUS_1
from nfvi.flows.registry import register
from nfvi.flows.runs import RunFlow

__all__ = ["Radial"]


@register("radial", help="z + β (z − z₀) / (α + ‖z − z₀‖), α = eᵃ, β = softplus(b) − α")
class Radial(RunFlow):
    """Contraction or expansion around z₀: f(z) = z + β h (z − z₀) with h = 1/(α + r), r = ‖z − z₀‖.

    α = exp(a) and β = softplus(b) − α > −α make it invertible, and
    log|det| = (d−1) log1p(βh) + log1p(αβh²). The inverse is closed: r solves a quadratic.

    Args:
        dim: d. z_ref = z₀ (d), a and b start where β = 0 and α = 1, moved by ``jitter`` times
            standard normal draws. See :class:`Flow` for the other arguments.

    Reference:
        Rezende and Mohamed, Variational inference with normalizing flows, 2015; β is that of
        their appendix A.2.
    """

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        self.a = nn.Parameter(self.jitter * self.noise())
        self.b = nn.Parameter(INVERSE_SOFTPLUS_1 + self.jitter * self.noise())
        self.z_ref = nn.Parameter(self.jitter * self.noise(dim))

    @classmethod
    def _push(cls, layers: Sequence[Any], z: Tensor) -> tuple[Tensor, Tensor]:
        total = None
        for center, alpha, positive in _parts(layers):
            offset = z - center
            r = torch.linalg.vector_norm(offset, dim=-1)
            stretch = (r + positive) / (r + alpha)
            z = torch.addcmul(center, stretch.unsqueeze(-1), offset)
            ladj = _ladj(r, alpha, positive, stretch, z.shape[-1])
            total = ladj if total is None else total + ladj
        return z, total if total is not None else z.new_zeros(z.shape[:-1])

    @classmethod
    def _pull(cls, layers: Sequence[Any], x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[:-1])
        for center, alpha, positive in reversed(_parts(layers)):
            offset = x - center
            r_x = torch.linalg.vector_norm(offset, dim=-1)
            # r² + (softplus(b) − r_x) r − α r_x = 0; the form without cancellation on either side.
            p = r_x - positive
            q = p.abs() + (p * p + 4 * alpha * r_x).sqrt()
            r = torch.where(p >= 0, q / 2, 2 * alpha * r_x / q)
            shrink = (r + alpha) / (r + positive)
            x = torch.addcmul(center, shrink.unsqueeze(-1), offset)
            total = total - _ladj(r, alpha, positive, 1 / shrink, x.shape[-1])
        return x, total


def _parts(layers: Sequence[Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """z₀ (d), α and softplus(b) = α + β of each layer: α within [ε², 1/ε], the other at least ε².

    ε is the dtype's rounding.
    """
    a, b = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("a", "b"))
    # So that the squares and quotients of the two, and their derivatives at r = 0, stay in
    # range. α is bounded before the exponential: behind it an overflow would give 0 · ∞.
    eps = torch.finfo(a.dtype).eps
    alpha = a.clamp(2 * math.log(eps), -math.log(eps)).exp()
    positive = softplus(b).clamp_min(eps**2)
    centers: list[Tensor] = [layer.z_ref for layer in layers]
    return list(zip(centers, alpha.unbind(0), positive.unbind(0), strict=True))


def _ladj(r: Tensor, alpha: Tensor, positive: Tensor, stretch: Tensor, dim: int) -> Tensor:
    """log|det df/dz| with 1 + βh = ``stretch``, which stays positive where βh rounds to −1."""
    along = torch.addcmul(alpha * positive, r, r + 2 * alpha).log() - 2 * (r + alpha).log()
    return torch.add(along, stretch.log(), alpha=dim - 1)
