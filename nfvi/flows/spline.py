"""Element-wise monotone splines."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nfvi.flows.base import Flow
from nfvi.flows.networks import ContextNetwork
from nfvi.flows.numerics import RationalQuadratic
from nfvi.flows.registry import register

__all__ = ["Spline"]


@register("spline", help="x_i = g_i(z_i), a monotone rational-quadratic spline with linear tails")
class Spline(Flow):
    """Element-wise spline: x_i = g(z_i; θ_i), log|det| = Σ log g'(z_i).

    Each coordinate has knots, slopes and a range of its own, see
    :class:`~nfvi.flows.numerics.rational_quadratic.RationalQuadratic`.

    Args:
        dim: d. The raw parameters (d, P) start at ``jitter`` times standard normal draws; with a
            context a network of it is added to them.
        bins: K, from 1 to 256; P = 3 K + 2.
        bound: half-width of the box that the knots start in; they learn theirs from there.
        common: see :class:`Flow`.

    Reference:
        Durkan, Bekasov, Murray and Papamakarios, Neural spline flows, 2019.
    """

    takes_context = True
    smooth = False

    def __init__(self, dim: int, *, bins: int = 8, bound: float = 3.0, **common: Any) -> None:
        super().__init__(dim, **common)
        self.spline = RationalQuadratic(self, bins, bound)
        size = self.spline.size
        self.raw = nn.Parameter(self.jitter * self.noise(dim, size))
        self.network = ContextNetwork(self, dim * size) if self.context_dim else None

    def _theta(self, context: Tensor | None) -> Tensor:
        if self.network is None:
            return self.raw
        return self.raw + self.network(context).unflatten(-1, self.raw.shape)  # type: ignore[no-any-return]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.spline(z, self._theta(context))
        return x, log_slope.sum(-1)

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        z, log_slope = self.spline.inverse(x, self._theta(context))
        return z, log_slope.sum(-1)
