"""Rows of data, in memory or out of it: any of them by number, and all of them piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from nfvi.errors import TargetError
from nfvi.utils import check_unmasked

__all__ = ["RowData", "read_rows"]

TAKEN = (
    "data= takes an array, a tensor, a table or a memory map, a tuple of them with as many rows"
    " each, or a Dataset or DataLoader"
)


class RowData(ABC):
    """N rows, each in one or more parts, such as x and y."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def take(self, index: np.ndarray) -> tuple[Tensor, ...]:
        """The rows of these numbers (m), in rising order: each part (m, \\*shape)."""

    def span(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """The rows from one number up to another."""
        return self.take(np.arange(start, stop))

    def pieces(self, count: int) -> Iterator[tuple[Tensor, ...]]:
        """All rows in order, ``count`` at a time."""
        n = len(self)
        return (self.span(start, min(start + count, n)) for start in range(0, n, count))


class _Arrays(RowData):
    """Arrays and tensors with as many rows each; a memory map is read where it is asked for."""

    def __init__(self, parts: Sequence[Tensor | np.ndarray]) -> None:
        self.parts = tuple(parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    def take(self, index: np.ndarray) -> tuple[Tensor, ...]:
        place = torch.from_numpy(index)
        return tuple(
            part[place.to(part.device)] if isinstance(part, Tensor) else _copied(part[index])
            for part in self.parts
        )

    def span(self, start: int, stop: int) -> tuple[Tensor, ...]:
        return tuple(
            part[start:stop] if isinstance(part, Tensor) else _copied(part[start:stop])
            for part in self.parts
        )


class _Items(RowData):
    """A map-style dataset, whose items become a batch by ``collate``."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, index: np.ndarray) -> tuple[Tensor, ...]:
        numbers = index.tolist()
        many = getattr(self.dataset, "__getitems__", None)
        items = [self.dataset[i] for i in numbers] if many is None else many(numbers)
        batch = self.collate(items)
        parts = (batch,) if isinstance(batch, Tensor) else batch
        tensors = isinstance(parts, list | tuple) and all(isinstance(p, Tensor) for p in parts)
        if not tensors or any(len(part) != len(numbers) for part in parts):
            raise TargetError(
                "data=: the items of a Dataset must become tensors with one row for each item;"
                f" {len(numbers)} of them became {_shown(batch)}"
            )
        return tuple(parts)


def read_rows(data: Any) -> tuple[RowData, int | None]:
    """Rows from what a user gives, and the batch size of a DataLoader.

    Raises:
        TargetError: it is none of what is taken, is empty, or its parts differ in length.
    """
    batch_size, collate = None, default_collate
    if isinstance(data, DataLoader):
        batch_size, collate, data = data.batch_size, data.collate_fn, data.dataset
    if isinstance(data, IterableDataset):
        raise TargetError(
            "data= is an IterableDataset, whose rows have no numbers to draw from; write them into"
            " a memory map (numpy.lib.format.open_memmap), or give a Dataset with __getitem__ and"
            " __len__"
        )
    rows: RowData
    if isinstance(data, TensorDataset) and collate is default_collate:
        rows = _Arrays([_part("data", tensor) for tensor in data.tensors])
    elif isinstance(data, Dataset):
        rows = _Items(data, collate)
    else:
        rows = _Arrays(_parts(data))
    if not len(rows):
        raise TargetError("data= is empty: there is no row")
    return rows, batch_size


def _parts(data: Any) -> list[Tensor | np.ndarray]:
    given = list(data) if isinstance(data, tuple) else [data]
    if not given:
        raise TargetError(f"data= is an empty tuple; {TAKEN}")
    several = len(given) > 1
    parts = [_part(f"data[{i}]" if several else "data", part) for i, part in enumerate(given)]
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise TargetError(
            "data= has parts of differing lengths:"
            f" {', '.join(f'{length:,} rows' for length in lengths)}; part by part, row i must"
            " belong to row i"
        )
    return parts


def _part(name: str, part: Any) -> Tensor | np.ndarray:
    """One part as a tensor or an array of real numbers with rows."""
    try:
        check_unmasked(name, part)
        found = part.detach() if isinstance(part, Tensor) else np.asanyarray(part)
    except ValueError as error:
        raise TargetError(str(error)) from error
    numbers = not found.is_complex() if isinstance(found, Tensor) else found.dtype.kind in "fiub"
    if not numbers or found.ndim == 0:
        raise TargetError(f"{name} holds {_shown(part)}, and no rows of real numbers; {TAKEN}")
    return found


def _copied(array: np.ndarray) -> Tensor:
    """A tensor of its own, as torch takes neither what is read-only nor a foreign byte order."""
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _shown(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(_shown(each) for each in value)}"
    return type(value).__name__
