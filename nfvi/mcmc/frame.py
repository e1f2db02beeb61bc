"""A summary of scalars: a pandas DataFrame whose text has all of its columns.

pandas takes its time to import, so that no other file imports this one at its top.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from nfvi.utils import align, short

__all__ = ["SummaryFrame", "shown"]

ROWS_SHOWN = 60


class SummaryFrame(pd.DataFrame):  # type: ignore[misc]
    """A row for each scalar; its text has all columns, in four digits, and the verdict below.

    Its lines have at most 88 columns: columns that find no place in them follow below.
    """

    @property
    def _constructor(self) -> type[SummaryFrame]:
        return SummaryFrame

    def __repr__(self) -> str:
        table = shown(self, ROWS_SHOWN)
        return f"{table}\n\n{verdict}" if (verdict := self._verdict()) else table

    def _repr_html_(self) -> str:
        table: str = super()._repr_html_() or ""
        return f"{table}<p>{verdict}</p>" if (verdict := self._verdict()) else table

    def _verdict(self) -> str:
        """The verdict in a sentence; empty where none is known."""
        return f"Verdict: {self.attrs['verdict']}." if "verdict" in self.attrs else ""


def shown(table: pd.DataFrame, most: int) -> str:
    """A table for a terminal: numbers in four digits, errors in two, in lines of 88 columns.

    Args:
        table: with a row for each scalar.
        most: of its rows, the first ones; a line says how many more there are.
    """
    titles = [str(column) for column in table.columns]
    rows = [
        [str(name), *(_cell(value, title) for value, title in zip(row, titles, strict=True))]
        for name, row in zip(table.index[:most], table[:most].to_numpy(), strict=True)
    ]
    more = len(table) - len(rows)
    return align(["", *titles], rows) + (f"\n... and {more} more" if more else "")


def _cell(value: object, title: str) -> str:
    if not isinstance(value, float | np.floating):
        return str(value)
    return short(float(value), 2 if title.startswith("mcse") else 4)
