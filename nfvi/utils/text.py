"""Text for a terminal: aligned tables, paragraphs, and numbers as short as they can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap

__all__ = ["WIDTH", "align", "filled", "plus_minus", "short", "to_sd", "wrapped"]

WIDTH = 88
GAP = "  "
HANG = "    "
LEAST_LABEL = 16
"""Columns that a cell on the left is not made narrower than."""


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
    return filled(text, "  ", "    ")


def filled(text: str, first: str = "", later: str = "") -> list[str]:
    """A paragraph in lines of at most 88 columns.

    Args:
        text: the paragraph; words that are longer than a line, such as formulas, are cut.
        first: what the first line begins with.
        later: what the other lines begin with.
    """
    words = [piece for word in text.split(" ") for piece in _cut(word, WIDTH - len(later))]
    return wrap(
        " ".join(words),
        WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def align(
    header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, width: int = WIDTH
) -> str:
    """A table with columns as wide as their widest cell, and lines of at most so many columns.

    Where it is too wide, the longest cells on the left are cut into several lines, and columns that
    still find no place follow below, with those on the left once more.

    Args:
        header: the column titles.
        rows: cells, as many in each row as there are titles.
        left: how many leading columns are aligned to the left; the others go to the right.
        width: of a line.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    labels = _narrowed(widths[:left], width - sum(len(GAP) + w for w in widths[left:]))
    room = width - sum(w + len(GAP) for w in labels)
    widths = [*labels, *(min(w, room) for w in widths[left:])]
    blocks = [_block(lines, widths, left, chosen) for chosen in _chosen(widths, left, width)]
    return "\n\n".join(blocks)


def _narrowed(labels: Sequence[int], room: int) -> list[int]:
    """The widths of the columns on the left, in so many columns if they can be."""
    labels = list(labels)
    while labels and sum(labels) + len(GAP) * (len(labels) - 1) > room:
        widest = labels.index(max(labels))
        if labels[widest] <= LEAST_LABEL:
            break
        labels[widest] -= 1
    return labels


def _chosen(widths: Sequence[int], left: int, width: int) -> list[list[int]]:
    """The columns of each block: those on the left, and as many of the others as find a place."""
    blocks: list[list[int]] = [[*range(left)]]
    for i in range(left, len(widths)):
        taken = sum(widths[k] + len(GAP) for k in blocks[-1])
        if taken + widths[i] > width and len(blocks[-1]) > left:
            blocks.append([*range(left)])
        blocks[-1].append(i)
    return blocks


def _block(
    lines: Sequence[Sequence[str]], widths: Sequence[int], left: int, chosen: Sequence[int]
) -> str:
    """Some columns of a table; a row whose cells are too long has several lines."""
    said = []
    for line in lines:
        pieces = [_cut(line[i], widths[i], HANG) for i in chosen]
        for parts in zip_longest(*pieces, fillvalue=""):
            cells = [
                part.ljust(widths[i]) if i < left else part.rjust(widths[i])
                for i, part in zip(chosen, parts, strict=True)
            ]
            said.append(GAP.join(cells).rstrip())
    return "\n".join(said)


def _cut(text: str, size: int, hang: str = "") -> list[str]:
    """A text in pieces of at most so many letters, cut behind blanks and signs if it can be.

    Args:
        text: the text.
        size: that number, of which ``hang`` takes some.
        hang: what all pieces but the first begin with.
    """
    pieces, lead = [], ""
    while len(lead) + len(text) > size:
        room = size - len(lead)
        end = max(text.rfind(sign, 0, room) + 1 for sign in " -*,)]|/")
        end = end if end > room // 3 else room
        pieces.append(lead + text[:end].rstrip())
        text, lead = text[end:].lstrip(), hang
    return [*pieces, lead + text]
