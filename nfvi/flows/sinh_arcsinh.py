"""Element-wise skew and tail weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softshrink

from nfvi.flows.base import Flow
from nfvi.flows.networks import ContextNetwork
from nfvi.flows.numerics import soft_bound
from nfvi.flows.registry import register

__all__ = ["SinhArcsinh"]

# Not measured: ε = 4 puts the median at 27, and with δ = e^−1.5 a draw of 5 sds lies at 10⁴. Wider,
# a step too long would send draws so far that the others no longer count.
MOST_SKEW = 4.0
MOST_LOG_TAIL = 1.5


@register("sinharcsinh", help="x_i = sinh((asinh(z_i) + ε_i)/δ_i), skew ε and tail weight 1/δ")
class SinhArcsinh(Flow):
    """Skew and tail weight: x_i = sinh((asinh(z_i) + ε_i)/δ_i).

    log|det| = Σ log cosh((asinh(z_i) + ε_i)/δ_i) − log cosh(asinh(z_i)) − log δ_i. With ε over 0
    the base is skewed to the right; with δ below 1 its tails are heavier (|x| grows like
    |z|^(1/δ)), over 1 lighter. |ε| < 4 and 2/9 < δ < 9/2, softly bounded. Where |z| or |x| would
    be over the 0.4th power of the largest float (10¹⁵ in float32) sinh and its inverse go on
    along their tangents, so that no power of a power leaves the range of floats.

    Args:
        dim: d. The raw values (2, d) of ε and −log δ start at ``jitter`` times standard normal
            draws; with a context a network of it is added to them.
        common: see :class:`Flow`.

    Reference:
        Jones and Pewsey, Sinh-arcsinh distributions, 2009.
    """

    takes_context = True

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        self.raw = nn.Parameter(self.jitter * self.noise(2, dim))
        self.network = ContextNetwork(self, 2 * dim) if self.context_dim else None

    def _shape(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """ε and −log δ, each (d) or (\\*, d)."""
        raw = self.raw
        if self.network is not None:
            raw = raw + self.network(context).unflatten(-1, (2, self.dim))
        skew, tail = raw.unbind(-2)
        return soft_bound(skew, MOST_SKEW), soft_bound(tail, MOST_LOG_TAIL)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        skew, log_tail = self._shape(context)
        w, log_slope = _asinh(z)
        x, log_slope_out = _sinh((w + skew) * log_tail.exp())
        return x, (log_slope + log_slope_out + log_tail).sum(-1)

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        skew, log_tail = self._shape(context)
        w, log_slope = _asinh(x)
        z, log_slope_out = _sinh(w * (-log_tail).exp() - skew)
        return z, (log_slope + log_slope_out - log_tail).sum(-1)


def _limit(x: Tensor) -> float:
    """The value of sinh where it goes over to its tangent, whose slope is the same to rounding."""
    return float(torch.finfo(x.dtype).max ** 0.4)


def _sinh(w: Tensor) -> tuple[Tensor, Tensor]:
    """sinh w, or its tangent; and the log of the slope plus log 2."""
    limit = _limit(w)
    reach = math.asinh(limit)
    inside = w.clamp(-reach, reach)
    # softshrink is w − inside, with a gradient that does not cancel against that of `inside`.
    return inside.sinh() + softshrink(w, reach) * limit, torch.logaddexp(inside, -inside)


def _asinh(x: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of ``_sinh``, and the log of its slope minus log 2."""
    limit = _limit(x)
    w = x.clamp(-limit, limit).asinh()
    return w + softshrink(x, limit) / limit, -torch.logaddexp(w, -w)
