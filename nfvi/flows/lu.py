"""Learned linear map in its LU factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.affine import INVERSE_SOFTPLUS_1, LEAST_RHO
from nfvi.flows.base import Flow
from nfvi.flows.networks import ContextNetwork
from nfvi.flows.numerics import in_range, inverse_of_run, product_in_range, solve_rows
from nfvi.flows.registry import register

__all__ = ["LU"]


@register("lu", help="L σ ⊙ U z, L and U triangular with ones on the diagonal, σ = softplus(ρ)")
class LU(Flow):
    """Learned linear map in LU factors: f(z) = L (σ ⊙ U z), σ = softplus(ρ), log|det| = Σ log σ.

    L is lower and U upper triangular, both with ones on the diagonal: together with σ these are
    the matrices whose leading minors are positive. There is no permutation in front, so that the
    layer starts near the identity; ``perm-lu`` has one. The map has no shift either: ``lu-loc``.

    Args:
        dim: d. The matrix ``factors`` (d, d) holds L below its diagonal, U above and ρ on it, at
            ``jitter`` / √d times standard normal draws off the diagonal, and on it where σ = 1,
            moved by ``jitter`` times such draws. With a context a network of it is added to ρ;
            L and U do not depend on it. See :class:`Flow` for the other arguments.

    Reference:
        Oliva, Dubey, Zaheer, Póczos, Salakhutdinov, Xing and Schneider, Transformation
        autoregressive networks, 2018.
        Kingma and Dhariwal, Glow: generative flow with invertible 1×1 convolutions, 2018.
    """

    takes_context = True

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        factors = self.jitter * self.noise(dim, dim) * dim**-0.5
        factors.diagonal().mul_(dim**0.5).add_(INVERSE_SOFTPLUS_1)
        self.factors = nn.Parameter(factors)
        self.network = ContextNetwork(self, dim) if self.context_dim else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sigma = self._sigma(context)
        y = (z + z @ self.factors.triu(1).mT) * sigma
        return y + y @ self.factors.tril(-1).mT, sigma.log().sum(-1).expand(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self._takes_products(x):
            return _by_products([self], x)
        log_sigma = self._sigma(context).log()
        y = solve_rows(self.factors, x.reshape(-1, self.dim), unit=True).reshape(x.shape)
        # Not y / σ: the gradient of that has σ² below, which underflows earlier.
        y = (y * (-in_range(log_sigma)).exp()).reshape(-1, self.dim)
        z = solve_rows(self.factors, y, upper=True, unit=True).reshape(x.shape)
        return z, -log_sigma.sum(-1).expand(x.shape[:-1])

    @classmethod
    def inverse_run(
        cls,
        flows: Sequence[Flow],
        x: Tensor,
        z: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        layers: list[LU] = list(flows)  # type: ignore[arg-type]
        if layers and layers[0]._takes_products(x):
            return _by_products(layers, x)
        return super().inverse_run(flows, x, z, context)

    def _takes_products(self, x: Tensor) -> bool:
        """Whether there is one matrix for all points, and the points are more than its rows."""
        return self.network is None and x.numel() > self.dim**2

    def _sigma(self, context: Tensor | None) -> Tensor:
        """σ (d), or (\\*, d) with a context."""
        rho = self.factors.diagonal(dim1=-2, dim2=-1)
        if self.network is not None:
            rho = (rho + self.network(context)).clamp_min(LEAST_RHO)
        return _positive(rho)


def _positive(rho: Tensor) -> Tensor:
    return softplus(rho).clamp_min(torch.finfo(rho.dtype).tiny)


def _by_products(layers: Sequence[LU], x: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of a run in a single product."""
    factors = torch.stack([layer.factors for layer in reversed(layers)])
    log_sigma = _positive(factors.diagonal(dim1=-2, dim2=-1)).log()
    matrix = inverse_of_run(factors, log_sigma)
    z = product_in_range(x.reshape(-1, x.shape[-1]), matrix)
    return z.reshape(x.shape), -log_sigma.sum().expand(x.shape[:-1])
