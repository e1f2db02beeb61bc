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
        return f"{table}\n\nVerdict: {self.attrs['verdict']}." if self.attrs else table
