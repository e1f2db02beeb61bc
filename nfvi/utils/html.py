"""HTML for notebooks: small cards with a table and a curve, plain in light and dark themes.

Nothing has a colour or a background of its own: lines and letters take the colour of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

__all__ = ["card", "folded", "html_table", "preformatted", "sparkline"]

WIDTH, HEIGHT, MARGIN = 320, 56, 3
POINTS = 160
START = 0.1
"""Of a curve, whose first values may be huge: limits are those of the rest."""
CELL = "padding:0.1em 0.7em 0.1em 0;border:0;background:none;text-align"


def card(title: str, lead: str, *parts: str) -> str:
    """A title, what is most important in bold letters, and parts that are HTML already.

    Args:
        title: plain text.
        lead: plain text, such as a verdict; its first sentence is bold.
        parts: HTML, empty ones left out.
    """
    first, dot, rest = lead.partition(". ")
    said = f"<b>{escape(first + dot.strip())}</b> {escape(rest)}" if lead else ""
    body = [f'<p style="margin:0.3em 0">{words}</p>' for words in (said, escape(title)) if words]
    style = "border-left:3px solid currentColor;padding-left:0.8em;max-width:60em;overflow-x:auto"
    return f'<div class="nfvi" style="{style}">{"".join([*body, *filter(None, parts)])}</div>'


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of plain text; the first ``left`` columns stand on the left, others on the right.

    Args:
        header: the column titles; none for a table without them.
        rows: cells.
        left: how many columns are aligned to the left.
    """
    lines = [f"<tr>{_cells('th', header, left)}</tr>"] if any(header) else []
    lines += [f"<tr>{_cells('td', row, left)}</tr>" for row in rows]
    style = "border-collapse:collapse;background:none;font-size:90%"
    return f'<table style="{style}">{"".join(lines)}</table>'


def _cells(tag: str, cells: Sequence[str], left: int) -> str:
    """Cells, of which numbers stay in one line."""
    sides = ["left" if i < left else "right;white-space:nowrap" for i in range(len(cells))]
    return "".join(
        f'<{tag} style="{CELL}:{side}">{escape(cell).replace(" ± ", "&#160;±&#160;")}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )


def folded(title: str, body: str) -> str:
    """HTML that is shown by a click on its title, which is plain text."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """A plain text in columns, as a terminal shows it."""
    style = "background:none;font-size:85%;overflow-x:auto"
    return f'<pre style="{style}">{escape(text)}</pre>'


def sparkline(values: Sequence[float], label: str) -> str:
    """A curve without axes, with what it shows beside it; empty if there is nothing to show.

    Args:
        values: one for each step; those that are not finite leave a gap in the mean alone.
        label: plain text, with where it ends perhaps.
    """
    means = _means(values)
    shown = [y for y in means[int(START * len(means)) :] if math.isfinite(y)]
    if len(shown) < 2:
        return ""
    low, high = _limits(shown)
    across = (WIDTH - 2 * MARGIN) / (len(means) - 1)
    up = (HEIGHT - 2 * MARGIN) / (high - low)
    points = " ".join(
        f"{MARGIN + i * across:.1f},{HEIGHT - MARGIN - (min(max(y, low), high) - low) * up:.1f}"
        for i, y in enumerate(means)
        if math.isfinite(y)
    )
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    title = escape(label, quote=True)
    return (
        f'<p style="margin:0.3em 0"><svg {size} role="img" aria-label="{title}"'
        f' style="max-width:100%"><title>{title}</title>{line}</svg><br><small>{title}</small></p>'
    )


def _means(values: Sequence[float]) -> list[float]:
    """At most 160 means of equal parts; of a part without finite values NaN."""
    count = min(len(values), POINTS)
    ends = [round(i * len(values) / count) for i in range(count + 1)] if count else []
    parts = [values[a:b] for a, b in pairwise(ends)]
    finite = [[y for y in part if math.isfinite(y)] for part in parts]
    return [sum(part) / len(part) if part else math.nan for part in finite]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Those of all values but the lowest twentieth, and never equal."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1]
    return (low, high) if high > low else (low - 1.0, high + 1.0)
