"""What the cells of a text hold: numbers, whole ones, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["MISSING", "are_whole", "is_number"]

MISSING = [
    *("", "NA", "na", "N/A", "n/a", "#N/A", "<NA>"),
    *("NaN", "nan", "NAN", "-nan", "NULL", "Null", "null", "None"),
]
"""What stands for a number that is not there."""

COMMAS_AS_POINTS = str.maketrans(",.", ".,")
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
"""A whole number that 64 bits hold."""


def is_number(cell: str, decimal: str) -> bool:
    """Whether a cell holds a number with such a decimal sign, or stands for a missing one."""
    if cell in MISSING:
        return True
    try:
        float(cell.translate(COMMAS_AS_POINTS) if decimal == "," else cell)
    except ValueError:
        return False
    # Python takes 1_000 and digits of all scripts.
    return "_" not in cell and cell.isascii()


def are_whole(rows: Iterable[Sequence[str]], chosen: Sequence[int]) -> list[bool]:
    """Which of some columns have nothing but whole numbers, and cells that are missing."""
    left = set(chosen)
    for cells in rows:
        left -= {i for i in left if not _is_whole(cells[i].strip())}
        if not left:
            break
    return [i in left for i in chosen]


def _is_whole(cell: str) -> bool:
    return cell in MISSING or WHOLE.fullmatch(cell) is not None
