"""Rows of numbers from a file that is named on the command line."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nfvi.cli.cells import MISSING, are_whole, is_number
from nfvi.cli.text_file import text_of

__all__ = ["Rows", "read_rows"]

DELIMITERS = "\t;"
"""Other than the comma; the first of these that the first line holds."""

PLACES_SHOWN = 5

UNREADABLE = (
    *(LookupError, OSError, RuntimeError, TypeError, ValueError),
    zipfile.BadZipFile,
)
BINARY = {
    ".parquet": ("a Parquet file", "pyarrow", "read_parquet"),
    ".xlsx": ("an Excel sheet", "openpyxl", "read_excel"),
    ".xls": ("an Excel sheet", "xlrd", "read_excel"),
}


@dataclass(frozen=True)
class Rows:
    """What is read of a file; as a table, with names of columns where the file has them.

    Attributes:
        values: (n, d), float64; NaN where a cell is empty or says NA, nan or null.
        columns: d names, or ``None``.
        dtypes: the names of the dtypes that the columns have in the file, or ``None``.
    """

    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    columns: tuple[str, ...] | None
    dtypes: tuple[str, ...] | None = None

    def without(self, rows: Any) -> Rows:
        """The same less some rows (n) bool."""
        return replace(self, values=self.values[~rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values.astype(dtype or self.values.dtype, copy=bool(copy))


def read_rows(
    path: Path,
    columns: str | None,
    context: str | None,
    drop_missing: bool | None = None,
    decimal: str | None = None,
) -> tuple[Rows, Rows | None]:
    """The columns to fit and those of the context.

    Args:
        path: a ``.npy`` array, (n, d) or (n); a Parquet file or an Excel sheet; anything else is
            text, compressed or not, with a line for each row, cells between commas, semicolons or
            tabs, and names in the first line or not. Between semicolons or tabs, numbers may have
            decimal commas.
        columns: names with commas between them, or numbers counted from 0; default all but those
            of the context.
        context: likewise; default none.
        drop_missing: whether to leave out rows with an empty cell in one of these columns, or to
            refuse them; default neither.
        decimal: ``"."`` or ``","``, of numbers in a text; default found out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, a cell is empty, or a column is missing or holds no numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    table = _table(path, decimal)
    given = [] if context is None else table.find("--context", context)
    chosen = table.find("--columns", columns) if columns is not None else table.others(given)
    if both := [table.label(i) for i in chosen if i in given]:
        raise ValueError(f"column {both[0]} is named by both --columns and --context")
    if not chosen:
        raise ValueError(f"{str(path)!r} has no column left to fit")
    rows, around = table.take(chosen), table.take(given) if given else None
    empty = np.isnan(rows.values).any(1)
    if around is not None:
        empty |= np.isnan(around.values).any(1)
    if drop_missing is None or not empty.any():
        return rows, around
    if not drop_missing:
        raise ValueError(_empty_cells(table, empty))
    return rows.without(empty), None if around is None else around.without(empty)


def _empty_cells(table: _Table, empty: Any) -> str:
    places = [table.place(row) for row in empty.nonzero()[0][:PLACES_SHOWN].tolist()]
    more = ", ..." if empty.sum() > len(places) else ""
    many = len(places) > 1
    what = ("line" if isinstance(table, _Text) else "row") + ("s" if many else "")
    return (
        f"{int(empty.sum())} of {len(empty)} rows {'have' if many else 'has'} an empty cell: {what}"
        f" {', '.join(places)}{more}. --drop-missing leaves {'them' if many else 'it'} out"
    )


def _table(path: Path, decimal: str | None) -> _Table:
    ending = path.suffix.lower()
    if ending == ".npy":
        return _Array(path)
    return _Frame(path, ending) if ending in BINARY else _Text(path, decimal)


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
        values = self.values(chosen)
        if self.names is None:
            return Rows(values, None)
        return Rows(values, tuple(self.names[i] for i in chosen), self.dtypes(chosen))

    def values(self, chosen: list[int]) -> Any:
        raise NotImplementedError

    def dtypes(self, chosen: list[int]) -> tuple[str, ...] | None:
        """The names of the dtypes of columns; ``None`` for float64."""

    def place(self, row: int) -> str:
        """Where a row stands in the file."""
        return str(row)


class _Array(_Table):
    def __init__(self, path: Path) -> None:
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{str(path)!r} is no array of numbers that NumPy saved") from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise ValueError(f"{str(path)!r} holds no real numbers")
        if array.ndim not in (1, 2):
            raise ValueError(f"{str(path)!r} has the shape {array.shape}; (n, d) or (n) is needed")
        self.array = array[:, None] if array.ndim == 1 else array
        super().__init__(path, None, self.array.shape[1])

    def values(self, chosen: list[int]) -> Any:
        return self.array[:, chosen].astype(np.float64)


class _Frame(_Table):
    """A Parquet file or an Excel sheet, which pandas reads where what it needs is installed."""

    def __init__(self, path: Path, ending: str) -> None:
        import pandas as pd

        kind, needs, read = BINARY[ending]
        try:
            self.frame = getattr(pd, read)(path)
        except ImportError as error:
            raise ValueError(
                f"{str(path)!r} is {kind}, which pandas reads with {needs}: pip install {needs}, or"
                " save it as CSV"
            ) from error
        except UNREADABLE as error:
            raise ValueError(f"{str(path)!r} cannot be read as {kind} ({error})") from error
        super().__init__(path, [str(name) for name in self.frame.columns], self.frame.shape[1])

    def values(self, chosen: list[int]) -> Any:
        for i in chosen:
            column = self.frame.iloc[:, i]
            if column.dtype.kind not in "fiu":
                raise ValueError(
                    f"{str(self.path)!r}, column {self.label(i)}: {column.dtype} is no number;"
                    " choose columns with --columns"
                )
        return self.frame.iloc[:, chosen].to_numpy(np.float64, na_value=np.nan)

    def dtypes(self, chosen: list[int]) -> tuple[str, ...] | None:
        return tuple(str(self.frame.dtypes.iloc[i]) for i in chosen)


class _Text(_Table):
    """Cells of a text, of which the csv module sees the lines and pandas reads the numbers.

    pandas alone would fill up a row that is too short, and gives no line of a cell that is wrong.
    """

    def __init__(self, path: Path, decimal: str | None) -> None:
        self.path, self.text = path, text_of(path)
        start = re.search(r".*\S.*", self.text)
        self.delimiter = next((d for d in DELIMITERS if start and d in start.group()), ",")
        self.decimals = decimal or ("." if self.delimiter == "," else ".,")
        top = list(islice(self._lines(), 2))
        if not top:
            raise ValueError(f"{str(path)!r} is empty")
        cells = [cell.strip() for cell in top[0][1]]
        header = not all(any(is_number(cell, d) for d in self.decimals) for cell in cells)
        names = [name or str(i) for i, name in enumerate(cells)] if header else None
        super().__init__(path, names, len(cells))
        for number, cells in self._lines():
            if len(cells) != self.width:
                raise ValueError(
                    f"{str(path)!r}, line {number}: {len(cells)} cells, and the first line has"
                    f" {self.width}"
                )
        if header and len(top) == 1:
            raise ValueError(f"{str(path)!r} has a line of names and no rows")

    def place(self, row: int) -> str:
        """The number of its line."""
        first = int(self.names is not None)
        return str(next(islice(self._lines(), row + first, None))[0])

    def values(self, chosen: list[int]) -> Any:
        for decimal in self.decimals:
            try:
                return self._numbers(chosen, decimal)
            except ValueError as error:
                failure = error
        raise self._wrong_cell(chosen, failure) from failure

    def dtypes(self, chosen: list[int]) -> tuple[str, ...] | None:
        """Whole numbers where all cells that hold something are written as such."""
        rows = (cells for _, cells in islice(self._lines(), 1, None))
        return tuple("int64" if whole else "float64" for whole in are_whole(rows, chosen))

    def _numbers(self, chosen: list[int], decimal: str) -> Any:
        import pandas as pd

        table = pd.read_csv(
            io.StringIO(self._for_pandas()),
            sep=self.delimiter,
            header=None if self.names is None else 0,
            names=range(self.width),
            usecols=chosen,
            dtype=np.float64,
            na_values=MISSING,
            keep_default_na=False,
            skipinitialspace=True,
            decimal=decimal,
        )
        return table[chosen].to_numpy()

    def _for_pandas(self) -> str:
        """The text without blanks behind cells, lines that hold nothing, and truth values.

        Of a column of ``True`` and ``False``, pandas would make ones and zeros.
        """
        text = f"\n{self.text}\n".replace("\xa0", " ")
        text = re.sub(rf" +(?=[\n{self.delimiter}])", "", text)
        text = re.sub(rf"\n[\s{self.delimiter}]*\n", "\n", text)
        return re.sub("True|TRUE|true|False|FALSE|false", "word", text)

    def _wrong_cell(self, chosen: list[int], failure: ValueError) -> ValueError:
        """The first cell that is no number, written as those before it are."""
        decimal = ""
        for number, cells in islice(self._lines(), int(self.names is not None), None):
            for i in chosen:
                cell = cells[i].strip()
                decimal = decimal or next((sign for sign in cell if sign in self.decimals), "")
                if not is_number(cell, decimal):
                    advice = "choose columns with --columns"
                    if decimal != "," and is_number(cell, ","):
                        advice = "if it has a decimal comma, --decimal ,"
                    return ValueError(
                        f"{str(self.path)!r}, line {number}, column {self.label(i)}: {cell!r} is"
                        f" no number; {advice}"
                    )
        return _no_text(self.path, failure)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """The number and the cells of each line that holds something."""
        reader = csv.reader(io.StringIO(self.text), delimiter=self.delimiter, skipinitialspace=True)
        try:
            for cells in reader:
                if any(map(str.strip, cells)):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise _no_text(self.path, error) from error


def _no_text(path: Path, why: Exception) -> ValueError:
    return ValueError(f"{str(path)!r} is not a text file with rows of numbers ({why})")
