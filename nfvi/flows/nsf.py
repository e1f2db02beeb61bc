"""Neural spline flows: coupling by rational-quadratic splines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nfvi.flows.coupling import Coupling
from nfvi.flows.networks import Features
from nfvi.flows.numerics import RationalQuadratic, raw_size
from nfvi.flows.registry import register

__all__ = ["NeuralSpline"]


@register("nsf", help="x_i = g(z_i), a rational-quadratic spline set by the other half of z")
class NeuralSpline(Coupling):
    """Spline coupling: x_A = z_A, x_i = g(z_i; θ_i(z_A)) for i in B, g a monotone spline.

    log|det| = Σ log g'(z_i). A is the first half of the coordinates in even layers, the second in
    odd ones.

    Args:
        dim: d, at least 2.
        bins: K, from 1 to 256.
        bound: half-width of the box that the knots start in; they learn theirs from there.
        hidden: units of each hidden layer of the network.
        activation: ``tanh``, ``silu``, ``relu`` or ``sin``.
        features: ``none`` or ``fourier(k)``, learned waves of the inputs.
        common: see :class:`Flow`.

    Reference:
        Durkan, Bekasov, Murray and Papamakarios, Neural spline flows, 2019.
    """

    smooth = False

    def __init__(
        self,
        dim: int,
        *,
        bins: int = 8,
        bound: float = 3.0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        features: Features = "none",
        **common: Any,
    ) -> None:
        super().__init__(
            dim,
            each=raw_size(bins),
            hidden=hidden,
            activation=activation,
            features=features,
            **common,
        )
        self.spline = RationalQuadratic(self, bins, bound)

    def _apply_to(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.spline(z, theta)  # type: ignore[no-any-return]

    def _solve(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.spline.inverse(x, theta)
