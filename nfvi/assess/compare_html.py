"""A comparison as a card of a notebook, and as a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nfvi.assess.compare_text import (
    ROWS_SHOWN,
    ComparisonFacts,
    comparison_text,
    price,
    stands_out,
    with_error,
)
from nfvi.utils import (
    Report,
    Section,
    card,
    folded,
    html_table,
    picture,
    preformatted,
    scrolled,
    to_sd,
)

__all__ = ["comparison_html", "comparison_report"]


def comparison_html(comparison: ComparisonFacts) -> str:
    """What a notebook shows: what stands out, a row for each scalar, and the rest folded."""
    left, right = comparison.left, comparison.right
    title = f"{left.label} against {right.label}, on {comparison.target}"
    if left.verdict:
        title += f"; verdict on {left.label}: {left.verdict}"
    whole = folded("all of print(...)", preformatted(comparison_text(comparison)))
    return card(title, " ".join(stands_out(comparison)), html_table(*_two_sides(comparison)), whole)


def comparison_report(comparison: ComparisonFacts, draw: Callable[[], Any]) -> Report:
    """What a report says: what stands out, the picture, a row for each scalar, and the rest.

    Args:
        comparison: in numbers and words.
        draw: makes the picture of both sides.
    """
    left, right = comparison.left, comparison.right
    lead, *others = stands_out(comparison)
    seen = picture(draw, f"{left.label} and {right.label}")
    sections = (
        Section("In one picture", (seen,)),
        Section("Scalars", (scrolled(*_two_sides(comparison)),)),
        Section("In words", (preformatted(comparison_text(comparison)),)),
    )
    details = (*others, *map(price, (left, right)))
    title = f"{left.label} against {right.label}, on {comparison.target}"
    return Report(title, lead, details, sections)


def _two_sides(comparison: ComparisonFacts) -> tuple[list[str], list[list[str]]]:
    """The header, and a row for each scalar with both sides in it."""
    left, right = comparison.left.label, comparison.right.label
    header = ["", f"{left}: mean", "sd", f"{right}: mean", "sd", "gap / sd", "sd ratio"]
    return header, [
        [
            row.name,
            *to_sd((row.left.mean, row.left.sd, row.right.mean, row.right.sd), row.right.sd),
            with_error(row.mean_difference, row.mean_difference_se),
            with_error(row.sd_ratio, row.sd_ratio_se),
        ]
        for row in comparison.table[:ROWS_SHOWN]
    ]
