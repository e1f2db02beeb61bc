"""Errors that show the user's text with a caret under the place that is wrong."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

from nfvi.errors import FormulaError

__all__ = ["caret", "character", "choice", "nearest", "quote"]

_WINDOW = 60
"""Characters of a long text that an error shows."""


def caret(text: str, at: int, message: str, note: str = "") -> FormulaError:
    """An error that shows ``text`` with a caret under position ``at``.

    A long text is cut to the surroundings of the caret, a blank of any kind is shown as a space
    and what cannot be printed as ``?``: the text takes one line whatever it holds.

    Args:
        text: as the user wrote it.
        at: from 0, the first character, to ``len(text)``, the place after the last.
        message: what is wrong, in words; the line above the text.
        note: a line below the caret.
    """
    start = min(max(0, at - _WINDOW // 2), max(0, len(text) - _WINDOW))
    end = start + _WINDOW
    head, tail = "..." * (start > 0), "..." * (end < len(text))
    before, after = _shown(text[start:at]), _shown(text[at:end])
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in before)
    column = 4 + len(head) + len(before) + wide
    lines = [message, f"    {head}{before}{after}{tail}".rstrip(), " " * column + "^"]
    return FormulaError("\n".join([*lines, note] if note else lines))


def _shown(text: str) -> str:
    # A combining mark (category M) takes no column of its own, so the caret would slip.
    return "".join(
        " " if c.isspace() else c if c.isprintable() and unicodedata.category(c)[0] != "M" else "?"
        for c in text
    )


def quote(text: str) -> str:
    """A piece of the user's text in quotes, shortened to fit a line."""
    return f"'{text if len(text) <= 30 else text[:27] + '...'}'"


def character(c: str) -> str:
    """One character in quotes; with its Unicode name where it may be taken for another."""
    if c.isascii() and c.isprintable():
        return f"'{c}'"
    name = unicodedata.name(c, f"the character U+{ord(c):04X}")
    return f"'{c}' ({name})" if _shown(c) == c else name


def choice(words: list[str]) -> str:
    """``a, b or c``."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'planar'?``, or nothing where no known name is near."""
    known = list(known)
    stem = name.rstrip("0123456789")
    if stem != name and stem in known:
        return f"; did you mean {quote(stem + '*' + name[len(stem) :])}?"
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
