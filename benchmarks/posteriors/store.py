"""Rows of benchmarks.posteriors in a JSON file, which is whole after every row."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

__all__ = ["Row", "Store", "decoded", "encoded", "read_rows"]

Row = dict[str, Any]
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
KEY = ("method", "target", "seed", "settings")


def key_of(row: Row) -> tuple[Any, ...]:
    """What tells measurements apart: method, target, seed, and settings such as a formula."""
    return tuple(row.get(name) for name in KEY)


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file holds no rows.
    """
    text = Path(path).read_text(encoding="utf-8")
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise ValueError(f"{path} holds no rows: it must be a file that --out wrote")
    rows: list[Row] = decoded(found["rows"])
    return rows


class Store:
    """Rows by what they measure; with a path, every change is on disk when it returns.

    Args:
        path: the JSON file; ``None`` keeps the rows in memory.
        resume: whether rows that the file holds already are kept, of what did not crash; else it
            is begun anew.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, resume: bool = False) -> None:
        self.path = None if path is None else Path(path)
        old = read_rows(path) if resume and self.path is not None and self.path.exists() else []
        self._rows = {key_of(row): row for row in old if row["status"] == "ok"}

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order in which they came."""
        return list(self._rows.values())

    def __contains__(self, row: Row) -> bool:
        return key_of(row) in self._rows

    def add(self, *rows: Row) -> None:
        """Add rows, in place of others that measured the same, and write the file."""
        self._rows |= {key_of(row): row for row in rows}
        if self.path is not None:
            whole = {"rows": encoded(self.rows)}
            part = self.path.with_name(self.path.name + ".part")
            part.write_text(json.dumps(whole, indent=1, allow_nan=False), encoding="utf-8")
            os.replace(part, self.path)


def encoded(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become the strings that ``float`` reads."""
    if isinstance(value, dict):
        return {name: encoded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def decoded(value: Any) -> Any:
    """What ``encoded`` was given."""
    if isinstance(value, dict):
        return {name: decoded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if isinstance(value, str):
        return NOT_FINITE.get(value, value)
    return value
