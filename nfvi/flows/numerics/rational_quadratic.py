"""The monotone rational-quadratic spline, from raw parameters, in both directions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus, softshrink

from nfvi.flows.base import Flow
from nfvi.flows.numerics.soft_bound import soft_bound

__all__ = ["RationalQuadratic", "raw_size"]

# The usual value for these splines. A smaller one lets a bin be a cliff, whose inverse is as steep
# as it is flat; a larger one costs shape, and with 256 bins it may be 1/256 at the most.
LEAST = 1e-3
"""Least width and height of a bin, as a share of the box; least slope at a knot; least half-width
of the box, as a share of where it starts."""
MOST_BINS = 256
# Of a box, not measured: coordinates that far out want scale, not knots.
LARGEST = 1e6


def raw_size(bins: int) -> int:
    """P = 3 K + 2, the number of raw parameters of a spline with K bins.

    Raises:
        ValueError: ``bins`` is not a whole number from 1 to 256.
    """
    if not isinstance(bins, int) or isinstance(bins, bool) or not 1 <= bins <= MOST_BINS:
        raise ValueError(
            f"bins={bins!r}: it must be a whole number from 1 to {MOST_BINS}, as in bins=8"
        )
    return 3 * bins + 2


class _Bin(NamedTuple):
    """The bin that a point is in: left knot, width, height, slopes at its ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor


class RationalQuadratic(nn.Module):
    """y = g(x; θ), increasing, made of quotients of quadratics between knots, linear outside.

    The knots run through the box [−B, B] × [−B, B]. Inside a bin of slope s = height/width, with
    slopes δ₀ and δ₁ at its ends, t = (x − x₀)/width and q = 1 − t,

        y = y₀ + height · t (s t + δ₀ q) / (s t² + (δ₀ + δ₁) t q + s q²);

    outside, g continues with the slopes at the outermost knots. Raw parameters θ of 0 mean the
    identity. They are, for K bins: K for the widths and K for the heights (softmax, at least
    0.001 of the box each), K + 1 for the slopes at the knots (between 0.001 and 1000) and one for
    B (softplus).

    Args:
        flow: the layer that it belongs to, whose dtype and device it takes.
        bins: K, from 1 to 256.
        bound: B at θ = 0, from above 0 to 10⁶.

    Raises:
        ValueError: ``bins`` or ``bound`` is none of these.

    Reference:
        Durkan, Bekasov, Murray and Papamakarios, Neural spline flows, 2019; Gregory and
        Delbourgo, Piecewise rational quadratic interpolation to monotonic data, 1982.
    """

    def __init__(self, flow: Flow, bins: int, bound: float) -> None:
        super().__init__()
        number = isinstance(bound, int | float) and not isinstance(bound, bool)
        if not number or not 0 < bound <= LARGEST:
            raise ValueError(
                f"bound={bound!r}: it must be a number above 0 and at most {LARGEST:g}, as in"
                " bound=3.0"
            )
        self.size, self.bins, self.bound = raw_size(bins), bins, bound
        # Knots are an affine function of the bins' shares: one product in place of a scale, a
        # sum, a running sum and the ends put on. The ends themselves are exact.
        k = torch.arange(bins + 1, dtype=torch.float64)
        weight = 2 * (1 - LEAST * bins) * (torch.arange(bins) < k.unsqueeze(1)).double()
        weight[-1] = 0
        bias = 2 * LEAST * k - 1
        bias[-1] = 1
        rows = (bins + 1) * torch.arange(3)
        like = flow.noise(0)
        self._keep("weight", torch.block_diag(weight, weight).to(like))
        self._keep("bias", bias.repeat(2).to(like))
        self._keep("ends", torch.stack([rows, rows + 1], -1).flatten().to(like.device))

    weight: Tensor
    bias: Tensor
    ends: Tensor

    def _keep(self, name: str, value: Tensor) -> None:
        # A matter of the options alone, so no part of the state.
        self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """g(x) and log g'(x) for x (\\*) and raw parameters (\\*, P), or of fewer dimensions."""
        table, half = self._table(raw)
        inside, outside = _parts(x / half)
        bin_ = self._bin(table, inside, 0)
        t = (inside - bin_.x) / bin_.width
        share, slope = _quotient(bin_, t)
        # The slope of the outermost knots, where a point outside has been moved to.
        y = bin_.y + bin_.height * share + slope * outside
        return y * half, slope.log()

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """g⁻¹(y) and the log of its slope; shapes as for :meth:`forward`."""
        table, half = self._table(raw)
        inside, outside = _parts(y / half)
        bin_ = self._bin(table, inside, self.bins + 1)
        t = _solve(bin_, (inside - bin_.y) / bin_.height)
        _, slope = _quotient(bin_, t)
        x = bin_.x + bin_.width * t + outside / slope
        return x * half, -slope.log()

    def _table(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Knots on both axes and raw slopes (\\*, 3 (K + 1)) in the box [−1, 1]², and B (\\*)."""
        k = self.bins
        bins, slopes, half = raw.split([2 * k, k + 1, 1], -1)
        shares = _softmax(bins.unflatten(-1, (2, k))).flatten(-2)
        knots = linear(shares, self.weight, self.bias)
        least = LEAST * self.bound
        beta = math.log(2) / (self.bound - least)
        return torch.cat([knots, slopes], -1), softplus(half.squeeze(-1), beta) + least

    def _bin(self, table: Tensor, inside: Tensor, row: int) -> _Bin:
        """The bin with ``inside`` between its knots on one axis, those from ``row`` on."""
        inner = table[..., row + 1 : row + self.bins]
        which = (inner <= inside.unsqueeze(-1)).sum(-1, keepdim=True)
        table = table.expand(*inside.shape, table.shape[-1])
        knots, slopes = table.gather(-1, which + self.ends).split([4, 2], -1)
        left, right = soft_bound(slopes, -math.log(LEAST)).exp().unbind(-1)
        x, x_right, y, y_right = knots.unbind(-1)
        # Differences of the very knots that the search compared: 0 ≤ t ≤ 1 despite rounding.
        return _Bin(x, y, x_right - x, y_right - y, left, right)


def _parts(u: Tensor) -> tuple[Tensor, Tensor]:
    """u cut at ±1, and what is cut off, with derivatives that sum to 1, at ±1 as well.

    There the derivative of torch's ``clamp`` is 1 before PyTorch 2.14 and 0 from then on.
    """
    outside = softshrink(u, 1)
    return torch.where(outside == 0, u, u.detach().clamp(-1, 1)), outside


def _softmax(raw: Tensor) -> Tensor:
    """Softmax along the last dimension; torch's own takes five times as long on short rows."""
    powers = (raw - raw.detach().amax(-1, keepdim=True)).exp()
    return powers * powers.sum(-1, keepdim=True).reciprocal()


def _quotient(bin_: _Bin, t: Tensor) -> tuple[Tensor, Tensor]:
    """(y − y₀)/height and dy/dx at t; sums of positive terms throughout."""
    s, q = bin_.height / bin_.width, 1 - t
    a = bin_.left * q + s * t
    b = s * q + bin_.right * t
    above = t * a
    below = above + q * b
    scale = s / below
    slope = scale * scale * (q * a + t * b)
    return above / below, slope


def _solve(bin_: _Bin, share: Tensor) -> Tensor:
    """t with (y − y₀)/height = share.

    With η = share and η̄ = 1 − η, t/q solves s η̄ (t/q)² + m t/q − s η = 0 with m = δ₀ η̄ − δ₁ η.
    Its two usual forms, 2 s η / (R + m) and (R − m) / (2 s η̄) with R² = m² + 4 s² η η̄, each
    cancel for one sign of m. The sums of their numerators and denominators have the same
    quotient, and give t to rounding for both. R² cannot be negative, nor 0 as η = 0 and η = 1
    leave a slope.
    """
    s, rest = bin_.height / bin_.width, 1 - share
    m = bin_.left * rest - bin_.right * share
    up = s * share
    root = (m * m + 4 * up * (s * rest)).sqrt()
    return (up + 0.5 * (root - m)) / (s + root)
