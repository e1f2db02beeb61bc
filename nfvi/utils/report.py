"""One self-contained HTML file: a verdict, and sections of tables, texts and pictures."""

from __future__ import annotations

import errno
import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

from nfvi._version import __version__
from nfvi.utils.files import whole_file
from nfvi.utils.html import html_table
from nfvi.utils.text import short
from nfvi.utils.versions import versions

__all__ = ["Report", "Section", "facts", "frame", "picture", "scrolled", "words", "write_report"]

DPI = 110
TEMPLATE = "report.html"
COLORS = {"good": "#009E73", "usable": "#E69F00", "not to be trusted": "#D55E00"}


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: plain text.
        parts: HTML, as the functions of this file make it.
    """

    title: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        title: plain text, as all are but the sections.
        lead: the verdict, or what else is most important.
        details: sentences below it.
        sections: in their order.
        word: the verdict in a word, for the colour beside it; empty where there is none.
    """

    title: str
    lead: str
    details: tuple[str, ...]
    sections: tuple[Section, ...]
    word: str = ""


def write_report(path: str | os.PathLike[str], make: Callable[[], Report]) -> None:
    """Write a report with the versions of nfvi and what it works with at its end.

    It loads nothing from elsewhere. An older file stays until the new one is complete.

    Args:
        path: the file; its folder must exist.
        make: what it says, asked for once it is known that the file has a place.

    Raises:
        ImportError: Jinja2 is missing.
        OSError: the file cannot be written.
    """
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "the report's folder does not exist; make it first", str(folder)
        )
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise ImportError("reports need Jinja2: pip install 'nfvi[plots]'") from error
    report = make()
    text = resources.files("nfvi.utils").joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = Environment(autoescape=True).from_string(text)
    last = Section("Versions", (facts(dict(versions())),))
    page = template.render(
        title=report.title,
        lead=report.lead,
        details=report.details,
        sections=(*report.sections, last),
        color=COLORS.get(report.word, "currentColor"),
        version=__version__,
    )
    with whole_file(Path(path)) as draft:
        draft.write_text(page, encoding="utf-8")


def picture(draw: Callable[[], Any], alt: str) -> str:
    """A figure of Matplotlib inside the file; where it cannot be drawn, why not.

    Args:
        draw: makes a figure, or the axes of one. A ``ValueError`` says that there is nothing to
            draw, as where the density of a target is 0 at all draws.
        alt: what is seen there, in plain text.
    """
    buffer = BytesIO()
    try:
        draw().figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    except ValueError as error:
        return words(f"No picture of {alt}: {error}.")
    data = b64encode(buffer.getvalue()).decode("ascii")
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def scrolled(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of plain text that scrolls where it is too large; see ``html_table``."""
    return f"<div>{html_table(header, rows, left)}</div>"


def frame(table: Any, most: int = 200) -> str:
    """A DataFrame of numbers in four digits; the first rows alone if there are many."""
    shown = table.head(most)
    rows = [
        [str(name), *(short(float(x)) for x in row)]
        for name, row in zip(shown.index, shown.to_numpy(), strict=True)
    ]
    more = len(table) - len(shown)
    return scrolled(["", *table.columns], rows) + (words(f"... and {more} more") if more else "")


def facts(values: Mapping[str, Any]) -> str:
    """Names and values in two columns; a sequence is listed, and ``none`` says that it is empty."""
    return scrolled([], [(name, _shown(value)) for name, value in values.items()], left=2)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value is None else str(value)


def words(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"
