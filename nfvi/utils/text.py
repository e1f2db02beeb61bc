"""Text for a terminal: aligned tables, paragraphs, and numbers as short as they can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap

__all__ = ["align", "plus_minus", "short", "to_sd", "wrapped"]

WIDTH = 88


def short(x: float, digits: int = 4) -> str:
    """A number in ``digits`` significant digits, ``-`` for a nan.

    >>> short(0.12345), short(12.0), short(123456.0), short(float("nan"))
    ('0.1235', '12.00', '1.235e+05', '-')
    """
    return "-" if math.isnan(x) else f"{x:#.{digits}g}".rstrip(".")


def to_sd(values: Sequence[float], sd: float) -> list[str]:
    """Values of one scale with the same number of decimals, to about a hundredth of an sd.

    >>> to_sd([1.0, 0.97117], sd=0.5)
    ['1.000', '0.971']
    """
    if not (math.isfinite(sd) and 1e-4 < sd < 1e6):
        return [short(x) for x in values]
    decimals = max(0, 2 - math.floor(math.log10(sd)))
    return ["-" if math.isnan(x) else f"{x:.{decimals}f}" for x in values]


def plus_minus(value: float, error: float) -> str:
    """A value with its standard error, to two digits of the latter and at most six decimals.

    >>> plus_minus(1.8, 0.1234), plus_minus(1.8, 0.0), plus_minus(float("-inf"), 0.1)
    ('1.80 ± 0.12', '1.8000', '-inf')
    """
    if not math.isfinite(value):
        return f"{value:.0f}"
    if not (math.isfinite(error) and error >= 5e-7):
        return f"{round(value, 4) + 0.0:.4f}"  # + 0.0 turns -0.0 into 0.0
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def wrapped(text: str) -> list[str]:
    """A paragraph in indented lines of at most 88 columns."""
    return wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def align(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table with columns as wide as their widest cell.

    Args:
        header: the column titles.
        rows: cells, as many in each row as there are titles.
        left: how many leading columns are aligned to the left; the others go to the right.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def joined(line: Sequence[str]) -> str:
        cells = [
            c.ljust(w) if i < left else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(map(joined, lines))
