"""How a user's log-likelihood of rows takes a batch of points, and its sum over all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, agree, shape_text
from nfvi.targets.row_data import RowData
from nfvi.utils import Counter

__all__ = [
    "OfRows",
    "RowLikelihood",
    "find_row_likelihood",
    "like_points",
    "odd_rows",
    "summed",
]

Rows: TypeAlias = tuple[Tensor, ...]
OfRows: TypeAlias = Callable[[Tensor, Rows], Tensor]
# Numbers that a piece of a sum over all rows writes: 128 MB in float64. Of 10⁶ rows and 50 columns
# at 256 points on two cores, four times as many take a tenth longer and four times the memory, and
# a quarter as many are no faster.
PIECE = 2**24
# Draws of a piece: enough that its rows are read and cast for many.
DRAWS = 1_024
# Of the rows of a piece: as they are read, and in the dtype of the points.
COPIES = 2


@dataclass(frozen=True)
class RowLikelihood:
    """The log-likelihood of rows at points, as it is called.

    Attributes:
        evaluate: of points z (n, d) and m rows: (n, m).
        batching: ``"batch"``, ``"vmap"`` or ``"loop"``.
        reason: for a loop, why vmap failed.
        numbers: that its operations write for one point and one row.
        width: numbers in a row.
    """

    evaluate: OfRows
    batching: str
    reason: str
    numbers: float
    width: float


def find_row_likelihood(
    fn: Callable[[Tensor, Rows], Any], points: Tensor, rows: Rows, name: str
) -> RowLikelihood:
    """Decide how fn is to be called, by calling it on points (n, d) and m rows with n != m.

    Args:
        fn: from points (n, d) to (n, m), or from one point (d,) to (m,).
        points: (n, d).
        rows: m of them.
        name: what messages call it.

    Raises:
        TargetError: it returns neither; the message says what came back.
    """
    n, m = len(points), len(rows[0])
    whole, of_batch, first = _attempt(fn, points, rows, (n, m))
    if whole is not None and _alone_as_together(fn, points, rows, whole):
        return _counted(fn, "batch", "", points, rows)
    single, of_point, second = _attempt(fn, points[0], rows, (m,))
    if single is None:
        raise TargetError(
            f"{name!r} must return one value a row, for z of shape {shape_text(points.shape)} and"
            f" {m} rows ({n}, {m}), or for one point ({m},). Called with the points,"
            f" {of_batch or 'a point alone gave other values than within a batch'}; called with"
            f" one, {of_point}. Leave the sum over rows to nfvi"
        ) from (first or second)

    def loop(z: Tensor, rows: Rows) -> Tensor:
        return torch.stack([fn(point, rows) for point in z])

    mapped = torch.func.vmap(fn, in_dims=(0, None), randomness="different")
    values, problem, _ = _attempt(mapped, points, rows, (n, m))
    if values is None or not agree(values, loop(points, rows).detach()):
        reason = problem or "its values differ from those of single points"
        return _counted(loop, "loop", reason, points, rows)
    return _counted(mapped, "vmap", "", points, rows)


def _attempt(
    fn: Callable[[Tensor, Rows], Any], z: Tensor, rows: Rows, shape: tuple[int, ...]
) -> tuple[Tensor | None, str, BaseException | None]:
    """The value of a call if it has a shape, else the problem in words, and the error."""
    try:
        value = fn(z, rows)
    except USER_ERRORS as error:
        return None, f"it raised {type(error).__name__}: {error}", error
    if not isinstance(value, Tensor):
        return None, f"it returned a {type(value).__name__}, not a torch tensor", None
    if tuple(value.shape) != shape:
        return None, f"it returned shape {shape_text(value.shape)}", None
    return value.detach(), "", None


def _alone_as_together(
    fn: Callable[[Tensor, Rows], Any], points: Tensor, rows: Rows, whole: Tensor
) -> bool:
    for i in range(len(points)):
        alone, _, _ = _attempt(fn, points[i : i + 1], rows, (1, whole.shape[1]))
        if alone is None or not agree(alone, whole[i : i + 1]):
            return False
    return True


def _counted(
    evaluate: OfRows, batching: str, reason: str, points: Tensor, rows: Rows
) -> RowLikelihood:
    with torch.no_grad(), Counter() as counter:
        evaluate(points, rows)
    # Under vmap a function of torch sees one point, and runs once for all.
    seen = 1 if batching == "vmap" else len(points)
    m = len(rows[0])
    width = sum(part.numel() for part in rows) / m
    return RowLikelihood(evaluate, batching, reason, counter.numbers / (seen * m), width)


def like_points(rows: Rows, z: Tensor) -> Rows:
    """Rows on the device of points, real numbers in their dtype."""
    return tuple(part.to(z.device, z.dtype if part.is_floating_point() else None) for part in rows)


def summed(likelihood: RowLikelihood, data: RowData, z: Tensor) -> Tensor:
    """The log-likelihood of all rows at points z (n, d): (n,), in float64, differentiable once.

    Rows and points go in pieces. Where a gradient is wanted it is taken with the value, so that
    no graph outlives its piece and rows are read once for both.
    """
    if torch.is_grad_enabled() and z.requires_grad:
        return _Summed.apply(z, likelihood, data)  # type: ignore[no-any-return, no-untyped-call]
    return _sum(likelihood, data, z.detach(), slopes=False)[0]


class _Summed(torch.autograd.Function):
    """The sum, which has its gradient from the same pieces."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, likelihood: RowLikelihood, data: RowData) -> Tensor:
        value, slope = _sum(likelihood, data, z.detach(), slopes=True)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return (along.unsqueeze(1) * slope).to(slope.dtype), None, None


def _sum(
    likelihood: RowLikelihood, data: RowData, z: Tensor, *, slopes: bool
) -> tuple[Tensor, Tensor]:
    """Value (n), float64, and gradient (n, d); the latter 0 where it is not wanted."""
    value = z.new_zeros(len(z), dtype=wide_dtype(z))
    slope = torch.zeros_like(z, dtype=value.dtype)
    # Reads values, so that no trace unrolls the pieces and keeps a copy of all rows.
    if not bool(z.isfinite().any()):
        return value * torch.nan, slope.to(z.dtype)
    for rows in data.pieces(_rows_at_once(likelihood, len(z))):
        rows = like_points(rows, z)
        for start in range(0, len(z), DRAWS):
            part = slice(start, start + DRAWS)
            value[part] += _piece(likelihood, z[part], rows, slope[part] if slopes else None)
    return value, slope.to(z.dtype)


def _piece(likelihood: RowLikelihood, z: Tensor, rows: Rows, slope: Tensor | None) -> Tensor:
    """The sum over some rows at some points (n), float64; its gradient is added to ``slope``."""
    with torch.set_grad_enabled(slope is not None):
        leaf = z if slope is None else z.clone().requires_grad_()
        total = likelihood.evaluate(leaf, rows).sum(1, dtype=wide_dtype(z))
        if slope is not None and total.requires_grad:
            slope += torch.autograd.grad(total.sum(), leaf)[0]
    return total.detach()


def _rows_at_once(likelihood: RowLikelihood, n: int) -> int:
    """How many rows a piece has: by what is written for them at n points, and by their own size."""
    return max(int(PIECE / (likelihood.numbers * min(n, DRAWS) + COPIES * likelihood.width)), 1)


def wide_dtype(z: Tensor) -> torch.dtype:
    """The dtype of a sum over many rows, of which float32 would lose the last digits."""
    return torch.float32 if z.device.type == "mps" else torch.float64


def odd_rows(likelihood: RowLikelihood, data: RowData, z: Tensor) -> Iterator[int]:
    """The numbers of rows whose log-likelihood at one point z (1, d) is NaN or +inf."""
    first = 0
    with torch.no_grad():
        for rows in data.pieces(_rows_at_once(likelihood, 1)):
            values = likelihood.evaluate(z, like_points(rows, z))[0]
            odd = values.isnan() | (values == torch.inf)
            yield from (first + odd.nonzero().flatten()).tolist()
            first += len(values)
