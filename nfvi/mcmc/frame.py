"""A summary of scalars: a pandas DataFrame whose text has all of its columns.

pandas takes its time to import, so that no other file imports this one at its top.
"""

from __future__ import annotations

import pandas as pd

from nfvi.utils import short

__all__ = ["SummaryFrame"]

ROWS_SHOWN = 60


class SummaryFrame(pd.DataFrame):  # type: ignore[misc]
    """A row for each scalar; its text has all columns, in four digits, and the verdict below."""

    @property
    def _constructor(self) -> type[SummaryFrame]:
        return SummaryFrame

    def __repr__(self) -> str:
        table: str = self.to_string(float_format=short, max_rows=ROWS_SHOWN)
        return f"{table}\n\n{verdict}" if (verdict := self._verdict()) else table

    def _repr_html_(self) -> str:
        table: str = super()._repr_html_() or ""
        return f"{table}<p>{verdict}</p>" if (verdict := self._verdict()) else table

    def _verdict(self) -> str:
        """The verdict in a sentence; empty where none is known."""
        return f"Verdict: {self.attrs['verdict']}." if "verdict" in self.attrs else ""
