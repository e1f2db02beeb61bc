"""How a user's log-likelihood of rows takes a batch of points, and its sum over all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, agree, shape_text
from nfvi.targets.pieced_sum import DRAWS, PIECE, Piece, pieced_sum, wide_dtype
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
    """The log-likelihood of all rows at points z (n, d): (n,), see :func:`pieced_sum`."""

    def of_rows(z: Tensor, rows: Rows) -> Tensor:
        return likelihood.evaluate(z, rows).sum(1, dtype=wide_dtype(z))

    def pieces() -> Iterator[Piece]:
        for rows in data.pieces(_rows_at_once(likelihood, len(z))):
            yield partial(of_rows, rows=like_points(rows, z))

    return pieced_sum(pieces, z, DRAWS)


def _rows_at_once(likelihood: RowLikelihood, n: int) -> int:
    """How many rows a piece has: by what is written for them at n points, and by their own size."""
    return max(int(PIECE / (likelihood.numbers * min(n, DRAWS) + COPIES * likelihood.width)), 1)


def odd_rows(likelihood: RowLikelihood, data: RowData, z: Tensor) -> Iterator[int]:
    """The numbers of rows whose log-likelihood at one point z (1, d) is NaN or +inf."""
    first = 0
    with torch.no_grad():
        for rows in data.pieces(_rows_at_once(likelihood, 1)):
            values = likelihood.evaluate(z, like_points(rows, z))[0]
            odd = values.isnan() | (values == torch.inf)
            yield from (first + odd.nonzero().flatten()).tolist()
            first += len(values)
