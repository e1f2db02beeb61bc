"""Rows of numbers from a file that is named on the command line."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Rows", "read_rows"]

DELIMITERS = "\t;"
"""Other than the comma; the first of these that the first line holds."""


@dataclass(frozen=True)
class Rows:
    """What is read of a file; as a table, with names of columns where the file has them.

    Attributes:
        values: (n, d), float64; NaN where a cell is empty.
        columns: d names, or ``None``.
    """

    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    columns: tuple[str, ...] | None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values.astype(dtype or self.values.dtype, copy=bool(copy))


def read_rows(path: Path, columns: str | None, context: str | None) -> tuple[Rows, Rows | None]:
    """The columns to fit and those of the context.

    Args:
        path: a ``.npy`` array, (n, d) or (n); anything else is text with a line for each row,
            cells between commas, semicolons or tabs, and names in the first line or not.
        columns: names with commas between them, or numbers counted from 0; default all but those
            of the context.
        context: likewise; default none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or a column is not there or holds no numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    table = _Array(path) if path.suffix.lower() == ".npy" else _Text(path)
    given = [] if context is None else table.find("--context", context)
    chosen = table.find("--columns", columns) if columns is not None else table.others(given)
    if both := [table.label(i) for i in chosen if i in given]:
        raise ValueError(f"column {both[0]} is named by both --columns and --context")
    if not chosen:
        raise ValueError(f"{str(path)!r} has no column left to fit")
    return table.take(chosen), table.take(given) if given else None


class _Table:
    """Columns by name or number."""

    def __init__(self, path: Path, names: list[str] | None, width: int) -> None:
        self.path, self.names, self.width = path, names, width

    def label(self, index: int) -> str:
        return str(index) if self.names is None else repr(self.names[index])

    def others(self, given: list[int]) -> list[int]:
        return [i for i in range(self.width) if i not in given]

    def find(self, option: str, text: str) -> list[int]:
        found = [self._index(option, word.strip()) for word in text.split(",")]
        if len(set(found)) < len(found):
            raise ValueError(f"{option} {text} names a column twice")
        return found

    def _index(self, option: str, word: str) -> int:
        names = self.names or []
        if names.count(word) == 1:
            return names.index(word)
        if names.count(word) > 1:
            raise ValueError(f"{option}: {str(self.path)!r} has several columns {word!r}")
        if word.isdecimal() and int(word) < self.width:
            return int(word)
        there = ", ".join(names) if names else f"no names, so write 0 to {self.width - 1}"
        raise ValueError(f"{option}: {str(self.path)!r} has no column {word!r}; it has {there}")

    def take(self, chosen: list[int]) -> Rows:
        names = None if self.names is None else tuple(self.names[i] for i in chosen)
        return Rows(self.values(chosen), names)

    def values(self, chosen: list[int]) -> Any:
        raise NotImplementedError


class _Array(_Table):
    def __init__(self, path: Path) -> None:
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{str(path)!r} is no array of numbers that NumPy saved") from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise ValueError(f"{str(path)!r} is no array of real numbers")
        if array.ndim not in (1, 2):
            raise ValueError(f"{str(path)!r} has the shape {array.shape}; (n, d) or (n) is needed")
        self.array = array[:, None] if array.ndim == 1 else array
        super().__init__(path, None, self.array.shape[1])

    def values(self, chosen: list[int]) -> Any:
        return self.array[:, chosen].astype(np.float64)


class _Text(_Table):
    def __init__(self, path: Path) -> None:
        lines = _cells(path)
        if not lines:
            raise ValueError(f"{str(path)!r} is empty")
        (_, first), *rest = lines
        header = any(cell and not _is_number(cell) for cell in first)
        names = [name or str(i) for i, name in enumerate(first)] if header else None
        super().__init__(path, names, len(first))
        self.lines = rest if header else lines
        for number, cells in self.lines:
            if len(cells) != self.width:
                raise ValueError(
                    f"{str(path)!r}, line {number}: {len(cells)} cells, and the first line has"
                    f" {self.width}"
                )
        if not self.lines:
            raise ValueError(f"{str(path)!r} has a line of names and no rows")

    def values(self, chosen: list[int]) -> Any:
        return np.array([[self._number(line, i) for i in chosen] for line in self.lines])

    def _number(self, line: tuple[int, list[str]], index: int) -> float:
        number, cells = line
        try:
            return float(cells[index] or "nan")
        except ValueError as error:
            raise ValueError(
                f"{str(self.path)!r}, line {number}, column {self.label(index)}:"
                f" {cells[index]!r} is no number; choose columns with --columns"
            ) from error


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each line that is not empty, without blanks around them, and its number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        delimiter = next((sign for sign in DELIMITERS if sign in first), ",")
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True
        )
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is no text with rows of numbers ({error})") from error
    return [(number, cells) for number, cells in lines if any(cells)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
