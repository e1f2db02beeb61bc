"""Triangular systems whose solutions and gradients stay within the range of floats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["FEW_DIMENSIONS", "solve_across", "solve_rows"]

# For one system after the other LAPACK takes a tenth of a microsecond and more. Each coordinate
# here takes some operations of a few microseconds for all draws.
FEW_DIMENSIONS = 4


def solve_across(diagonal: Tensor, rows: Tensor, right: Tensor, *, upper: bool = False) -> Tensor:
    """A⁻¹ b for many triangular systems, which are the last axis of everything.

    Args:
        diagonal: of A (d, n).
        rows: of A (d − 1, n, d), without the one that has nothing but its diagonal: the first, or
            the last where A is upper triangular. All but what is to be read must be 0, on the
            diagonal too.
        right: b (d, n).
        upper: whether A is upper triangular, or else lower.

    Returns:
        The solutions (d, n), differentiable with respect to b alone.
    """
    dim = len(right)
    if dim > FEW_DIMENSIONS:
        edge = torch.zeros_like(rows[:1])
        scaled = rows / (diagonal[:-1] if upper else diagonal[1:]).unsqueeze(-1)
        unit = torch.cat([scaled, edge] if upper else [edge, scaled])
        solved: Tensor = torch.linalg.solve_triangular(
            # LAPACK would copy matrices that lie otherwise, in each direction, and more slowly.
            unit.transpose(0, 1).contiguous(),
            (right / diagonal).mT.unsqueeze(-1),
            upper=upper,
            unitriangular=True,
        )
        return solved.squeeze(-1).mT
    found = list(right.unbind())
    order = range(dim - 1, -1, -1) if upper else range(dim)
    for k, i in enumerate(order):
        for j in order[:k]:
            found[i] = found[i] - rows[i if upper else i - 1, :, j] * found[j]
        found[i] = found[i] / diagonal[i]
    return torch.stack(found)


def solve_rows(matrix: Tensor, rows: Tensor, *, upper: bool = False, unit: bool = False) -> Tensor:
    """A⁻¹ b for a triangular A and each row b, cut like :func:`~nfvi.flows.numerics.in_range`.

    The inverse of a triangular matrix may grow exponentially with d, and so may the gradients
    that come back through it; here both are cut at ± the largest float to the power 0.4.

    Args:
        matrix: A (\\*, d, d); the other triangle is not read.
        rows: right-hand sides (\\*, n, d).
        upper: whether A is upper triangular, or else lower.
        unit: whether the diagonal is taken to be ones, without reading it.

    Returns:
        The solutions (\\*, n, d), differentiable with respect to matrix and rows.
    """
    return _SolveRows.apply(matrix, rows, upper, unit)  # type: ignore[no-any-return,no-untyped-call]


class _SolveRows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, rows: Tensor, upper: bool, unit: bool) -> Tensor:
        return _solve(matrix, rows, upper=upper, unit=unit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        matrix, _, ctx.upper, ctx.unit = inputs
        ctx.save_for_backward(matrix, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        matrix, solution = ctx.saved_tensors
        inside = solution.abs() < _limit(solution)
        passed = torch.where(inside, gradients[0], 0.0)
        # Without a second derivative to come, the bare solve does.
        solve = solve_rows if torch.is_grad_enabled() else _solve
        by_rows = solve(matrix.mT, passed, upper=not ctx.upper, unit=ctx.unit)
        if not ctx.needs_input_grad[0]:
            return None, by_rows, None, None
        by_matrix = -by_rows.mT @ solution
        offset = 1 if ctx.unit else 0
        part = by_matrix.triu(offset) if ctx.upper else by_matrix.tril(-offset)
        return part, by_rows, None, None


def _solve(matrix: Tensor, rows: Tensor, *, upper: bool, unit: bool) -> Tensor:
    limit = _limit(rows)
    rows = rows.clamp(-limit, limit)
    solution: Tensor = torch.linalg.solve_triangular(
        matrix.mT, rows, upper=not upper, left=False, unitriangular=unit
    )
    # What left the range on the way is infinite or, from ∞ − ∞, not a number; but what came
    # in as not a number stays so.
    return torch.add(solution.nan_to_num(0.0).clamp(-limit, limit), rows, alpha=0)


def _limit(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).max ** 0.4)
