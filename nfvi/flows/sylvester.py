"""Sylvester flows, which push along m directions at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.affine import INVERSE_SOFTPLUS_1
from nfvi.flows.base import Flow
from nfvi.flows.householder import compact_form
from nfvi.flows.networks import ContextNetwork
from nfvi.flows.numerics import solve_rows, solve_tanh
from nfvi.flows.registry import register

__all__ = ["Sylvester"]

# Not measured: the inverse takes a root find for each, one after the other.
USUAL_RANK = 8
# Of R̃_ii, by which ρ_i is divided: nearer to 0 the entries of R, and their gradients, explode.
LEAST_SLOPE = 1e-3


@register("sylvester", help="z + Q R tanh(R̃ Qᵀ z + b), Q with m orthonormal columns, R, R̃ upper")
class Sylvester(Flow):
    """Planar flow of rank m: f(z) = z + Q R tanh(R̃ Qᵀz + b).

    Q (d, m) has orthonormal columns, the first m of m Householder reflections in a row. R and R̃
    (m, m) are upper triangular with R̃_ii = s_i = 10⁻³ + softplus(·) and R_ii s_i = softplus(ρ_i)
    − 1 > −1, so that f is invertible; signs of R̃_ii would add nothing, as tanh is odd. With
    h = tanh(·), log|det| = Σ log(h_i² + (1 − h_i²) softplus(ρ_i)) by Sylvester's identity. The
    inverse takes m bracketed scalar root finds a point, one after the other, with the gradient
    by the implicit function theorem.

    Args:
        dim: d.
        rank: m, from 1 to d; 0 is the smaller of 8 and d.
        common: see :class:`Flow`. The reflections' normals ``v`` (m, d) start in random
            directions. ``factors`` (m, m), with R above the diagonal, R̃ᵀ below it and ρ on it,
            starts where R = 0 and R̃ is diagonal, ``scale`` (m) where s = 1, and b (m) at 0, all
            moved by ``jitter`` (default 0.1) times standard normal draws. With a context a
            network of it is added to b.

    Raises:
        ValueError: ``rank`` is not a whole number from 0 to d.

    Reference:
        van den Berg, Hasenclever, Tomczak and Welling, Sylvester normalizing flows for
        variational inference, 2018; the determinant is by their theorem 1, the condition on the
        diagonals that of their theorem 2.
    """

    fast = "sampling"
    takes_context = True
    default_jitter = 0.1  # as planar, of which it is the form of higher rank

    def __init__(self, dim: int, *, rank: int = 0, **common: Any) -> None:
        super().__init__(dim, **common)
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 <= rank <= dim:
            raise ValueError(
                f"rank={rank!r}: it must be a whole number from 1 to the dimension {dim}, or 0 for"
                f" the smaller of {USUAL_RANK} and {dim}, as in rank={min(dim, 2)}"
            )
        m = self.rank = rank or min(dim, USUAL_RANK)
        factors = self.jitter * self.noise(m, m)
        factors.diagonal().add_(INVERSE_SOFTPLUS_1)
        self.v = nn.Parameter(self.noise(m, dim))
        self.factors = nn.Parameter(factors)
        self.scale = nn.Parameter(INVERSE_SOFTPLUS_1 + self.jitter * self.noise(m))
        self.b = nn.Parameter(self.jitter * self.noise(m))
        self.network = ContextNetwork(self, m) if self.context_dim else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps = self._maps()
        h = (z @ (maps.inner @ maps.frame).mT + self._shift(context)).tanh()
        return z + h @ (maps.outer.mT @ maps.frame), _ladj(h, maps.slope)

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        maps, b = self._maps(), self._shift(context)
        y = self._preimage(maps, b, x, z)
        h = (y @ maps.inner.mT + b).tanh()
        return x - h @ (maps.outer.mT @ maps.frame), -_ladj(h, maps.slope)

    def _shift(self, context: Tensor | None) -> Tensor:
        return self.b if self.network is None else self.b + self.network(context)

    def _maps(self) -> _Maps:
        normals, compact = compact_form(self.v)
        eye = torch.eye(*normals.shape, dtype=normals.dtype, device=normals.device)
        frame = eye - normals[:, : self.rank].mT @ (compact @ normals)
        tiny = torch.finfo(normals.dtype).tiny
        slope = softplus(self.factors.diagonal(dim1=-2, dim2=-1)).clamp_min(tiny)
        scale = softplus(self.scale) + LEAST_SLOPE
        outer = self.factors.triu(1) + ((slope - 1) / scale).diag_embed()
        return _Maps(frame, outer, self.factors.tril(-1).mT + scale.diag_embed(), slope, scale)

    def _preimage(self, maps: _Maps, b: Tensor, x: Tensor, z: Tensor | None) -> Tensor:
        """Qᵀz (\\*, m) with its gradients.

        It solves y + R tanh(R̃ y + b) = Qᵀx. A step of Newton's method from the solution, of size
        0, brings in the first derivatives, and a second one the second.
        """
        end = x @ maps.frame.mT
        with torch.no_grad():
            y = _solve(maps, b, end) if z is None else z @ maps.frame.mT
            h = (y @ maps.inner.mT + b).tanh()
            jacobian = _jacobian(h, maps)
        for _ in range(2 if z is None else 1):
            rest = end - y - (y @ maps.inner.mT + b).tanh() @ maps.outer.mT
            change = (rest - rest.detach()).unsqueeze(-2)
            y = y + solve_rows(jacobian, change, upper=True).squeeze(-2)
        return y


class _Maps(NamedTuple):
    """Qᵀ (m, d), R and R̃ (m, m), 1 + R_ii R̃_ii (m) and R̃_ii (m)."""

    frame: Tensor
    outer: Tensor
    inner: Tensor
    slope: Tensor
    scale: Tensor


def _ladj(h: Tensor, slope: Tensor) -> Tensor:
    return torch.addcmul(slope, h * h, 1 - slope).log().sum(-1)


def _jacobian(h: Tensor, maps: _Maps) -> Tensor:
    """I + R diag(1 − h²) R̃ (\\*, m, m), upper triangular, with a diagonal that stays positive."""
    product = (maps.outer * (1 - h * h).unsqueeze(-2)) @ maps.inner
    return product.triu(1) + torch.addcmul(maps.slope, h * h, 1 - maps.slope).diag_embed()


def _solve(maps: _Maps, b: Tensor, end: Tensor) -> Tensor:
    """y with y + R tanh(R̃ y + b) = end, from the last coordinate to the first."""
    outer, inner = maps.outer.triu(1), maps.inner.triu(1)
    y, h = torch.zeros_like(end), torch.zeros_like(end)
    for i in range(end.shape[-1] - 1, -1, -1):
        c = end[..., i] - (h * outer[i]).sum(-1)
        shift = b[..., i] + (y * inner[i]).sum(-1)
        # With a = s y + shift this is a + (slope − 1) tanh(a) = s c + shift.
        a = solve_tanh(maps.scale[i] * c + shift, maps.slope[i])
        h[..., i] = a.tanh()
        y[..., i] = c - maps.outer[i, i] * h[..., i]
    return y
