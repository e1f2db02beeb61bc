"""Autoregressive flows whose transformer is a sum of tanh steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from nfvi.flows.autoregressive import Autoregressive, Derivatives
from nfvi.flows.networks import Features
from nfvi.flows.numerics import solve_increasing
from nfvi.flows.registry import register

__all__ = ["Monotone"]

# `monotone*3` on pot1 (600 steps of 128 even draws, two seeds) ends at KL 0.014 to 0.031 for slopes
# of 1e-5 to 0.03, shares of 0.25 to 0.9 and reaches of 1 to 3, which is what seeds differ by. The
# least slope bounds the inverse's, a larger share lets the map get flatter, and centres further out
# bend the tails.
LEAST_SLOPE = 1e-3
MOST_TERMS = 100
SHARE = 0.5
"""Of the slope at the start, what the tanh terms may take away again."""
REACH = 2.0
"""The centres of the tanh terms start evenly within plus and minus this."""


@register("monotone", help="x_i = a z_i + Σ c_k tanh(s_k z_i + t_k) + m, all from z_<i")
class Monotone(Autoregressive):
    """Autoregressive sum of K tanh steps: x_i = A z_i + Σ_k c_k tanh(s_k z_i + t_k) + m.

    All of A, c, s, t and m come from z_<i by one network. With γ = 1/(2K), s_k > 0, c_k > −γ and
    A = a + γ Σ s_k for an a of at least 0.001,

        dx_i/dz_i = a + Σ_k s_k (γ tanh² + (c_k + γ) (1 − tanh²)) > 0,

    so that a term may bend the map both ways, c_k = 0 leaves it straight, and the sum starts at
    the identity. The inverse is a bracketed root find for one coordinate after the other.

    Args:
        dim: d.
        hidden: units of each hidden layer of the network.
        activation: ``tanh``, ``silu``, ``relu`` or ``sin``.
        features: ``none`` or ``fourier(k)``, learned waves of the inputs.
        terms: K, from 1 to 100.
        alternate: whether every other layer turns the order of the coordinates round.
        common: see :class:`Flow`.

    Reference:
        Huang, Krueger, Lacoste and Courville, Neural autoregressive flows, 2018.
    """

    fast = "sampling"

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int] = (32, 32),
        activation: str = "tanh",
        features: Features = "none",
        terms: int = 6,
        alternate: bool = True,
        **common: Any,
    ) -> None:
        if not isinstance(terms, int) or isinstance(terms, bool) or not 1 <= terms <= MOST_TERMS:
            raise ValueError(f"terms={terms!r}: it must be a whole number from 1 to {MOST_TERMS}")
        self.terms, self.size = terms, 2 + 3 * terms
        self.gamma = SHARE / terms
        super().__init__(
            dim,
            hidden=hidden,
            activation=activation,
            features=features,
            alternate=alternate,
            **common,
        )
        # The identity: m = 0, a = 1 − SHARE, c = 0, s = 1, centres spread evenly.
        start = [0.0, _inverse_softplus(1 - SHARE - LEAST_SLOPE)]
        start += [_inverse_softplus(self.gamma)] * terms + [_inverse_softplus(1.0)] * terms
        start += torch.linspace(-REACH, REACH, terms, dtype=torch.float64, device="cpu").tolist()
        self.conditioner.start_at(torch.tensor(start * dim, dtype=torch.float64))

    def _apply_to(self, u: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = _value_and_slope(u, self._read(theta))
        return value, slope.log()

    def _solve(self, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        steps = self._read(theta)
        with torch.no_grad():
            offset = steps._replace(shift=steps.shift - v)
            middle = -offset.shift / steps.rise
            # tanh lies within ±1; the room beyond lets Newton's first step arrive there.
            reach = 2 * steps.c.abs().sum(-2) / steps.rise
            u = solve_increasing(lambda u: _value_and_slope(u, offset), middle, reach)
        # Newton steps from the root: the first gives it exact first derivatives, the second
        # exact second ones.
        for _ in range(2):
            value, slope = _value_and_slope(u, steps)
            u = u - (value - v) / slope
        return u, -_value_and_slope(u, steps)[1].log()

    def _derivatives(self, u: Tensor, theta: Tensor) -> Derivatives:
        p, u = self._read(theta), u.unsqueeze(-2)
        h = torch.addcmul(p.t, p.s, u).tanh()
        bend = 1 - h * h
        by_t = p.c * bend
        lift = by_t + self.gamma
        slope = p.least + (p.s * lift).sum(-2)
        # d²T/du dt = s c (1 − tanh²)', and what u, s and t have of it.
        curve = -2 * p.s * by_t * h
        # From the positive numbers a, c, s to the raw ones: softplus' = sigmoid.
        to_raw = theta.narrow(-2, 1, 1 + 2 * self.terms).sigmoid()
        a, c, s = to_raw.split([1, self.terms, self.terms], -2)
        one = torch.ones_like(u)
        value_by = torch.cat([one, u * a, h * c, u * lift * s, by_t], -2)
        slope_by = torch.cat(
            [torch.zeros_like(u), a, p.s * bend * c, torch.addcmul(lift, u, curve) * s, curve], -2
        )
        return Derivatives(
            slope=slope,
            value_by_theta=value_by,
            log_slope_by_u=(p.s * curve).sum(-2) / slope,
            log_slope_by_theta=slope_by / slope.unsqueeze(-2),
        )

    def _read(self, theta: Tensor) -> _Steps:
        terms = self.terms
        shift, raw, t = theta.split([1, 1 + 2 * terms, terms], -2)
        a, c, s = softplus(raw).split([1, terms, terms], -2)
        least = a.squeeze(-2) + LEAST_SLOPE
        rise = torch.add(least, s.sum(-2), alpha=self.gamma)
        return _Steps(shift.squeeze(-2), least, rise, c - self.gamma, s, t, self.gamma)


class _Steps(NamedTuple):
    """m, a, A (\\*, n) and c, s, t (\\*, K, n), with γ."""

    shift: Tensor
    least: Tensor
    rise: Tensor
    c: Tensor
    s: Tensor
    t: Tensor
    gamma: float


def _value_and_slope(u: Tensor, p: _Steps) -> tuple[Tensor, Tensor]:
    """T(u) and T'(u)."""
    h = torch.addcmul(p.t, p.s, u.unsqueeze(-2)).tanh()
    value = torch.addcmul(p.shift, p.rise, u) + (p.c * h).sum(-2)
    # A + Σ s c (1 − tanh²) as a sum of positive terms, which cannot cancel.
    return value, p.least + (p.s * (p.gamma + p.c * (1 - h * h))).sum(-2)


def _inverse_softplus(y: float) -> float:
    return math.log(math.expm1(y))
