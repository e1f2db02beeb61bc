"""Planar flows, which push along one direction at a hyperplane; a run of them in few operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.affine import INVERSE_SOFTPLUS_1
from nfvi.flows.numerics import affine_rows, backward_recursion, forward_recursion
from nfvi.flows.registry import register
from nfvi.flows.runs import RunFlow

__all__ = ["Planar"]


@register("planar", help="z + û tanh(wᵀz + b), û = u + (softplus(wᵀu) − 1 − wᵀu) w / ‖w‖²")
class Planar(RunFlow):
    """Push along û at the hyperplane wᵀz + b = 0: f(z) = z + û tanh(wᵀz + b).

    û = u + (softplus(wᵀu) − 1 − wᵀu) w/‖w‖² keeps wᵀû > −1, so that f is invertible, and
    log|det| = log1p((1 − tanh²) wᵀû), evaluated as log(h² + (1 − h²) softplus(wᵀu)), h = tanh.
    The inverse has no closed form: one bracketed scalar root find a point, with the gradient by
    the implicit function theorem.

    Args:
        dim: d. w (d) starts at a random direction of unit length, u (d) where û = 0, moved by
            ``jitter`` (default 0.1) times standard normal draws, and b at ``jitter`` times one.
            See :class:`Flow` for the other arguments.

    Reference:
        Rezende and Mohamed, Variational inference with normalizing flows, 2015; û is that of
        their appendix A.1.
    """

    fast = "sampling"
    # On a target of two modes fits from here end a little better than from 0.01.
    default_jitter = 0.1

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__(dim, **common)
        direction = self.noise(dim)
        direction = direction / torch.linalg.vector_norm(direction)
        self.u = nn.Parameter(INVERSE_SOFTPLUS_1 * direction + self.jitter * self.noise(dim))
        self.w = nn.Parameter(direction)
        self.b = nn.Parameter(self.jitter * self.noise())

    @classmethod
    def _push(cls, layers: Sequence[Any], z: Tensor) -> tuple[Tensor, Tensor]:
        run = _stack(layers)
        rows = z.reshape(-1, z.shape[-1])
        h = forward_recursion(affine_rows(run.b, rows, run.w.mT), run.gram).tanh()
        x = affine_rows(rows, h, run.u_hat)
        return x.reshape(z.shape), _ladj(h, run.slope).reshape(z.shape[:-1])

    @classmethod
    def _pull(cls, layers: Sequence[Any], x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        run = _stack(layers)
        rows = x.reshape(-1, x.shape[-1])
        known = None
        if z is not None:
            with torch.no_grad():
                start = torch.addmm(run.b, z.reshape(rows.shape), run.w.mT)
                known = forward_recursion(start, run.gram)
        end = affine_rows(run.b, rows, run.w.mT)
        h = backward_recursion(end, run.gram, run.slope, known).tanh()
        base = affine_rows(rows, h, run.u_hat, alpha=-1.0)
        return base.reshape(x.shape), -_ladj(h, run.slope).reshape(x.shape[:-1])


class _Run(NamedTuple):
    """What K layers share: w and û (K, d), b and softplus(wᵀu) (K), G_jk = û_jᵀw_k (K, K)."""

    w: Tensor
    u_hat: Tensor
    b: Tensor
    slope: Tensor
    gram: Tensor


def _stack(layers: Sequence[Any]) -> _Run:
    u, w, b = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("u", "w", "b"))
    w_u, w_w = (w * u).sum(-1), (w * w).sum(-1)
    # At w = 0 the correction is 0/0; there it is taken as 0, and the layer is a plain shift.
    tiny = torch.finfo(w.dtype).tiny
    slope = torch.where(w_w > tiny, softplus(w_u).clamp_min(tiny), 1.0)
    u_hat = u + ((slope - 1 - w_u) / w_w.clamp_min(tiny)).unsqueeze(-1) * w
    return _Run(w, u_hat, b, slope, u_hat @ w.mT)


def _ladj(h: Tensor, slope: Tensor) -> Tensor:
    return torch.addcmul(slope, h * h, 1 - slope).log().sum(-1)
