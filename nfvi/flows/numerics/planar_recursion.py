"""The scalar recursions inside a run of planar layers, with derivatives written by hand.

K planar layers act on z only through the K scalars a_k = w_kᵀz_k + b_k. With h = tanh(a) and
G_jk = û_jᵀw_k these solve a triangular system, forwards when z is given and backwards when x is,
so that autograd sees one node instead of about ten operations a layer. The derivatives change
nothing in place and can themselves be differentiated, as a Hessian does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nfvi.flows.numerics.batching import batch_first
from nfvi.flows.numerics.long_product import long_product
from nfvi.flows.numerics.rootfind import solve_tanh

__all__ = ["backward_recursion", "forward_recursion"]


def forward_recursion(start: Tensor, gram: Tensor) -> Tensor:
    """Solve a_k = start_k + Σ_{j<k} tanh(a_j) G_jk.

    Args:
        start: w_kᵀz + b_k for the input z of the run (n, K).
        gram: G (K, K); only the part above the diagonal is read.

    Returns:
        a (n, K), differentiable with respect to both.
    """
    return _Forward.apply(start, gram)  # type: ignore[no-any-return,no-untyped-call]


def backward_recursion(
    end: Tensor, gram: Tensor, slope: Tensor, known: Tensor | None = None
) -> Tensor:
    """Solve a_k + (slope_k − 1) tanh(a_k) = end_k − Σ_{j>k} tanh(a_j) G_jk.

    Args:
        end: w_kᵀx + b_k for the output x of the run (n, K).
        gram: G (K, K); only the part below the diagonal is read.
        slope: 1 + w_kᵀû_k > 0 (K), the derivative of the left-hand side at a_k = 0.
        known: the solution (n, K), if it is known; no root find runs then.

    Returns:
        a (n, K), differentiable with respect to the first three by the implicit function theorem.
    """
    if known is None:
        with torch.no_grad():
            known = _solve_backward(end, gram, slope)
    return _Backward.apply(end, gram, slope, known.detach())  # type: ignore[no-any-return,no-untyped-call]


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(start: Tensor, gram: Tensor) -> Tensor:
        a, upper = start.clone(), gram.triu(1)
        for k in range(a.shape[-1] - 1):
            a.addcmul_(_column(a, k).tanh(), _row(upper, k))
        return a

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gram, a = ctx.saved_tensors
        h = a.tanh()
        sech2, lower = 1 - h * h, gram.triu(1).mT
        passed = torch.zeros_like(grad)
        for k in range(a.shape[-1] - 1, 0, -1):
            total = torch.addcmul(_column(grad, k), _column(sech2, k), _column(passed, k))
            passed = torch.addcmul(passed, total, _row(lower, k))
        total = torch.addcmul(grad, sech2, passed)
        return total, long_product(h, total).triu(1)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return _Forward.apply(*batch_first(info, in_dims, inputs)), 0  # type: ignore[no-untyped-call]


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(end: Tensor, gram: Tensor, slope: Tensor, solution: Tensor) -> Tensor:
        return solution.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        gram, slope, a = ctx.saved_tensors
        h = a.tanh()
        sech2, upper = 1 - h * h, gram.tril(-1).mT
        derivative = h * h + sech2 * slope.unsqueeze(-2)
        passed = torch.zeros_like(grad)
        for k in range(a.shape[-1] - 1):
            total = torch.addcmul(_column(grad, k), _column(sech2, k), _column(passed, k), value=-1)
            passed = torch.addcmul(passed, total / _column(derivative, k), _row(upper, k))
        total = torch.addcmul(grad, sech2, passed, value=-1) / derivative
        return total, -long_product(h, total).tril(-1), -(h * total).sum(-2), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return _Backward.apply(*batch_first(info, in_dims, inputs)), 0  # type: ignore[no-untyped-call]


def _solve_backward(end: Tensor, gram: Tensor, slope: Tensor) -> Tensor:
    rest, lower = end.clone(), gram.tril(-1)
    solution = []
    for k in range(end.shape[-1] - 1, -1, -1):
        a = solve_tanh(rest[..., k], slope[..., k])
        rest = rest.addcmul(a.tanh().unsqueeze(-1), _row(lower, k), value=-1)
        solution.append(a)
    return torch.stack(solution[::-1], dim=-1)


def _column(matrix: Tensor, k: int) -> Tensor:
    return matrix[..., k : k + 1]


def _row(matrix: Tensor, k: int) -> Tensor:
    return matrix[..., k : k + 1, :]
