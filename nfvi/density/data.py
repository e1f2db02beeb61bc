"""Data from a user: arrays, tensors, tables and loaders as rows of numbers, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from nfvi.density.table import Table
from nfvi.utils import check_unmasked

__all__ = ["Data", "as_rows", "numbers", "read_data"]

SHOWN = 5


@dataclass(frozen=True)
class Data:
    """Rows of data, all numbers finite.

    Attributes:
        x: (n, d), float64.
        context: (n, c), float64, or ``None``.
        weights: (n), float64, all above 0, or ``None``.
        table: what x was like, where it was a table.
        kind: the floating-point dtype that x had, or ``None`` if it had none.
        tensor: whether x was a torch tensor.
        batch_size: that of a DataLoader.
        numbers: those of the rows (n) in what the user gave; ``None`` where all are there.
    """

    x: Tensor
    context: Tensor | None
    weights: Tensor | None
    table: Table | None
    kind: torch.dtype | None
    tensor: bool
    batch_size: int | None = None
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of the columns of x, where it was a table."""
        return None if self.table is None else self.table.columns

    @property
    def names(self) -> list[str]:
        """What messages call the columns."""
        if self.columns is not None:
            return [repr(name) for name in self.columns]
        return [str(i) for i in range(self.x.shape[1])]

    def take(self, index: Tensor) -> Data:
        """The rows of an index (m)."""
        context = None if self.context is None else self.context[index]
        weights = None if self.weights is None else self.weights[index]
        numbers = index if self.numbers is None else self.numbers[index]
        return replace(self, x=self.x[index], context=context, weights=weights, numbers=numbers)

    def number(self, row: int) -> int:
        """The number of a row in what the user gave."""
        return row if self.numbers is None else int(self.numbers[row])


def read_data(x: Any, context: Any = None, weights: Any = None, *, name: str = "x") -> Data:
    """Check what a user gave as data.

    Args:
        x: an array, tensor or table (n, d), or (n) for d = 1; or a DataLoader.
        context: the same with (n, c), or ``None``.
        weights: (n), or ``None``. Rows of weight 0 are left out.
        name: what messages call x.

    Raises:
        TypeError: something does not hold real numbers, or a loader gives something else.
        ValueError: a shape or a value is wrong; the message says which rows.
    """
    batch_size = None
    if isinstance(x, DataLoader):
        batch_size = x.batch_size
        x, found = _read_loader(x, name)
        if found is not None and context is not None:
            raise ValueError(
                f"context= beside a DataLoader whose batches hold contexts, ({name}, context):"
                " leave one of them out"
            )
        context = found if found is not None else context
    table = Table.of(x)
    rows = as_rows(name, x)
    if rows.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(rows.shape)}")
    given = None if context is None else _of_length("context", as_rows("context", context), rows)
    for label, values in ((name, rows), ("context", given)):
        _check_finite(label, values, x if label == name else context)
    data = Data(rows, given, None, table, _kind(x), isinstance(x, Tensor), batch_size)
    return data if weights is None else _weighted(data, weights)


def as_rows(name: str, values: Any) -> Tensor:
    """Numbers (n, d), or (n) for d = 1, as a tensor (n, d) in float64.

    Raises:
        TypeError: they are not real numbers.
        ValueError: they have another number of dimensions.
    """
    rows = numbers(name, values)
    if rows.dim() == 1:
        rows = rows.unsqueeze(1)
    if rows.dim() != 2:
        raise ValueError(
            f"{name} must have rows and columns, (n, d), or be one column, (n); got the shape"
            f" {tuple(rows.shape)}"
        )
    return rows


def numbers(name: str, values: Any) -> Tensor:
    """Real numbers of any shape as a tensor in float64; None and NA become NaN.

    Raises:
        TypeError: they are not real numbers.
        ValueError: some are masked.
    """
    check_unmasked(name, values)
    if isinstance(values, Tensor):
        if values.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
        return values.detach().to(torch.float64)
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            # Tables of mixed columns come as objects; strings that look like numbers stay out.
            if (
                array.dtype.kind != "O"
                or values is None
                or any(isinstance(v, str) for v in array.flat)
            ):
                raise TypeError(f"dtype {array.dtype}")
            array = np.where(_missing(array), np.nan, array).astype(np.float64)
        return torch.from_numpy(np.array(array, np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must hold real numbers in rows and columns (an array, tensor or table); got"
            f" {type(values).__name__} ({error})"
        ) from error


def _missing(array: np.ndarray) -> np.ndarray:
    """Which cells of an array of objects are None, or NA of pandas."""
    named = ("NoneType", "NAType")
    cells = [type(value).__name__ in named for value in array.flat]
    return np.array(cells, bool).reshape(array.shape)


def _kind(x: Any) -> torch.dtype | None:
    if isinstance(x, Tensor):
        return x.dtype if x.is_floating_point() else None
    dtype = getattr(x, "dtype", None)
    return torch.float32 if dtype in (np.float32, np.float16) else torch.float64


def _of_length(name: str, values: Tensor, rows: Tensor) -> Tensor:
    if len(values) != len(rows):
        raise ValueError(f"{name} has {len(values):,} rows, and x has {len(rows):,}")
    return values.to(rows.device)


def _check_finite(name: str, values: Tensor | None, given: Any) -> None:
    if values is None:
        return
    finite = f"{name}[np.isfinite({name}).all(axis=1)]"
    how = f"{name}.dropna()" if hasattr(given, "dropna") else finite
    bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        more = ", …" if len(bad) > SHOWN else ""
        raise ValueError(
            f"{name} has {len(bad):,} of {len(values):,} rows with NaN or inf, the first ones"
            f" {', '.join(map(str, bad[:SHOWN]))}{more}: leave them out, as with {how},"
            " or fill them in; missing values, None and NA, count as NaN"
        )


def _weighted(data: Data, weights: Any) -> Data:
    values = numbers("weights", weights)
    if values.shape != (len(data),):
        raise ValueError(
            f"weights must have one number for each of the {len(data):,} rows; got the shape"
            f" {tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()) or bool((values < 0).any()):
        raise ValueError("weights must be finite numbers of at least 0")
    if not bool((values > 0).any()):
        raise ValueError("all weights are zero: no row is left")
    values = values.to(data.x.device)
    kept = data.take((values > 0).nonzero().flatten())
    return replace(kept, weights=values[values > 0])


def _read_loader(loader: DataLoader[Any], name: str) -> tuple[Tensor, Tensor | None]:
    """All batches of a loader: x (n, d) and, where they hold one, context (n, c)."""
    if isinstance(loader.dataset, np.ma.MaskedArray):
        check_unmasked(name, loader.dataset)
    rows: list[Tensor] = []
    contexts: list[Tensor] = []
    for batch in _in_order(loader):
        parts = [batch] if isinstance(batch, Tensor) else batch
        tensors = isinstance(parts, list | tuple) and all(isinstance(p, Tensor) for p in parts)
        if not tensors or len(parts) not in (1, 2):
            raise TypeError(
                f"the batches of a DataLoader must be {name}, ({name},) or ({name}, context), all"
                f" of them tensors; got {type(batch).__name__}"
            )
        rows.append(parts[0])
        contexts.extend(parts[1:])
    if not rows:
        raise ValueError(f"{name} is empty: the DataLoader gives no batch")
    return torch.cat(rows), torch.cat(contexts) if contexts else None


def _in_order(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches, not shuffled: the fit has its own order, which its seed fixes."""
    sampler = loader.sampler
    if loader.batch_size is None or not isinstance(sampler, RandomSampler) or sampler.replacement:
        return iter(loader)
    return iter(
        DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            generator=torch.Generator(),  # or torch's own would be drawn from
        )
    )
