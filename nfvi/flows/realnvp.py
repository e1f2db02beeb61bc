"""Real NVP: affine coupling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nfvi.flows.coupling import Coupling
from nfvi.flows.networks import Features
from nfvi.flows.numerics import check_bound, soft_bound
from nfvi.flows.registry import register

__all__ = ["RealNVP"]


@register(
    "realnvp", help="x_i = exp(a_i) z_i + m_i, set by the other half of z", aliases=("coupling",)
)
class RealNVP(Coupling):
    """Affine coupling: x_A = z_A, x_i = exp(a_i(z_A)) z_i + m_i(z_A) for i in B.

    log|det| = Σ a_i. A is the first half of the coordinates in even layers, the second in odd
    ones.

    Args:
        dim: d, at least 2.
        hidden: units of each hidden layer of the network.
        activation: ``tanh``, ``silu``, ``relu`` or ``sin``.
        features: ``none`` or ``fourier(k)``, learned waves of the inputs.
        bound: of |a_i|: a_i = bound · tanh(raw / bound), from above 0 to 20. By default a layer
            scales by e⁴ = 55 at most, either way: two reach a ratio of scales of 3000, and
            twenty in a row stay within float32.
        common: see :class:`Flow`.

    Reference:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2017, section 3.2.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        features: Features = "none",
        bound: float = 4.0,
        **common: Any,
    ) -> None:
        check_bound(bound)
        super().__init__(
            dim, each=2, hidden=hidden, activation=activation, features=features, **common
        )
        self.bound = bound

    def _apply_to(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = theta.unbind(-1)
        log_scale = soft_bound(raw, self.bound)
        return torch.addcmul(shift, z, log_scale.exp()), log_scale

    def _solve(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = theta.unbind(-1)
        log_scale = soft_bound(raw, self.bound)
        return (x - shift) * (-log_scale).exp(), -log_scale
