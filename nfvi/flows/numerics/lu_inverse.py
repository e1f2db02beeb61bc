"""The inverse of a run of LU layers as one matrix, with a derivative written by hand.

Small layers cost what their number of tensor operations costs: here all layers of a run are
inverted together, so that many points then take a single product.
"""

from __future__ import annotations

from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from nfvi.flows.numerics.triangular_solve import solve_rows

__all__ = ["inverse_of_run"]


def inverse_of_run(factors: Tensor, log_sigma: Tensor) -> Tensor:
    """C = M₁ ⋯ M_K with M_k = (L_k diag(σ_k) U_k)⁻ᵀ, so that z = x C undoes the layers in turn.

    Entries and gradients are cut at ± the largest float to the power 0.4.

    Args:
        factors: L below the diagonals, U above them (K, d, d); the diagonals are not read. The
            layer that is undone first comes first.
        log_sigma: log σ (K, d).

    Returns:
        C (d, d), differentiable with respect to both.
    """
    return _InverseOfRun.apply(factors, log_sigma)[0]  # type: ignore[no-any-return,no-untyped-call]


class _InverseOfRun(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(factors: Tensor, log_sigma: Tensor) -> tuple[Tensor, Tensor]:
        matrices = _inverses(factors, log_sigma)
        return reduce(_product, matrices.unbind(0)).clone(), matrices

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        factors, log_sigma, matrices = ctx.saved_tensors
        gradient = gradients[0]
        if gradient is None:
            return None, None
        if torch.is_grad_enabled():
            matrices = _inverses(factors, log_sigma)  # now with their own derivatives
        each = matrices.unbind(0)
        # By A_k = L_k diag(σ_k) U_k: −(M₁ ⋯ M_k)ᵀ G (M_k ⋯ M_K)ᵀ, for M_k = A_k⁻ᵀ transposed.
        before = torch.stack(list(accumulate(each, _product)))
        after = torch.stack(list(accumulate(each[::-1], lambda right, m: _product(m, right)))[::-1])
        outer = _cut(_cut(_cut(before.mT @ _cut(gradient)) @ after.mT))
        return _by_factors(-outer.mT, factors, log_sigma.exp())


def _by_factors(by_matrix: Tensor, factors: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives by the factors and by log σ from those by A = L diag(σ) U."""
    lower, upper = factors.tril(-1), factors.triu(1)
    left = by_matrix + lower.mT @ by_matrix
    right = by_matrix + by_matrix @ upper.mT
    by_upper = (left * sigma.unsqueeze(-1)).triu(1)
    by_lower = (right * sigma.unsqueeze(-2)).tril(-1)
    diagonal = left.diagonal(dim1=-2, dim2=-1) + (left * upper).sum(-1)
    return _cut(by_upper + by_lower), _cut(diagonal * sigma)


def _inverses(factors: Tensor, log_sigma: Tensor) -> Tensor:
    """M = L⁻ᵀ diag(σ)⁻¹ U⁻ᵀ of each layer (K, d, d)."""
    eye = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    lower = solve_rows(factors, eye.expand_as(factors), unit=True)
    scaled = lower * (-log_sigma).exp().unsqueeze(-2)
    return solve_rows(factors, scaled, upper=True, unit=True)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return _cut(a @ b)


def _cut(x: Tensor) -> Tensor:
    limit = torch.finfo(x.dtype).max ** 0.4
    return x.clamp(-limit, limit)
