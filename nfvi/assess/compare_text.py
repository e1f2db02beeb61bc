"""A comparison as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nfvi.assess.compare_numbers import Distances, Row
from nfvi.assess.compare_sides import Moments
from nfvi.utils import HDI, align, filled, short, to_sd

__all__ = [
    *("ROWS_SHOWN", "ComparisonFacts", "SideFacts", "comparison_text", "price", "stands_out"),
    "with_error",
]

ROWS_SHOWN = 30
# Looser than the 1.01 of a run's own text: a comparison continues, with a word on what it rests on.
RHAT_DISTRUST = 1.05
# Of any mean or sd of up to some dozens of scalars: by chance in one comparison of hundreds.
STANDARD_ERRORS = 4


@dataclass(frozen=True)
class SideFacts:
    """What the text says of one side.

    Attributes:
        label: its name.
        draws: how many.
        chains: how many chains these are; 1 for independent draws.
        independent: whether the draws are independent.
        seconds: what they cost; nan if unknown.
        ess: effective draws bought by these seconds; of chains, those of the worst scalar.
        worst_rhat: the largest R-hat; nan for independent draws.
        verdict: the word for a fit; empty for all else.
    """

    label: str
    draws: int
    chains: int
    independent: bool
    seconds: float
    ess: float
    worst_rhat: float
    verdict: str


@dataclass(frozen=True)
class ComparisonFacts:
    """What the text of a :class:`~nfvi.Comparison` says, in numbers and words.

    Attributes:
        target: the name of what was compared on.
        left: one side.
        right: the other, which is the reference.
        table: a row for every scalar, left against right.
        against_exact: the same with left, then right, against exact draws.
        distances: between the sets of draws.
    """

    target: str
    left: SideFacts
    right: SideFacts
    table: tuple[Row, ...]
    against_exact: tuple[tuple[Row, ...], tuple[Row, ...]] | None
    distances: Distances


def comparison_text(comparison: ComparisonFacts) -> str:
    """What was compared, the table per scalar, the distances, and how to read them."""
    left, right = comparison.left, comparison.right
    parts = [
        _filled(f"{left.label} against {right.label}, on {comparison.target}"),
        _filled(*map(price, (left, right))),
        _table(comparison),
        _distances(comparison),
        _filled(*stands_out(comparison)),
    ]
    return "\n\n".join(parts)


def _filled(*texts: str) -> str:
    return "\n".join(line for text in texts for line in filled(text))


def price(side: SideFacts) -> str:
    """What the draws of a side are, what they cost, and the verdict on a fit."""
    kind = "independent draws" if side.independent else f"draws in {side.chains} chains"
    text = f"{side.label}: {side.draws:,} {kind}"
    if not math.isnan(side.seconds):
        text += f"; {_effective(side)} in {side.seconds:.1f} s"
    return f"{text}; verdict: {side.verdict}" if side.verdict else text


def _effective(side: SideFacts) -> str:
    ess = "-" if math.isnan(side.ess) else f"{side.ess:,.0f}"
    if side.independent:
        return f"an importance-sampling ESS of {ess}"
    return f"a bulk ESS of {ess} or more"


def _table(comparison: ComparisonFacts) -> str:
    header = ["", "", "mean", "sd", *HDI, "ESS/s", "gap, ratio"]
    lines = []
    exact = {row.name: row.right for row in (comparison.against_exact or [()])[0]}
    for row in comparison.table[:ROWS_SHOWN]:
        sd = row.right.sd
        gap = with_error(row.mean_difference, row.mean_difference_se)
        ratio = with_error(row.sd_ratio, row.sd_ratio_se)
        speeds = [short(speed, 3) for speed in row.ess_per_second]
        lines += [
            [row.name, comparison.left.label, *_values(row.left, sd), speeds[0], f"gap {gap}"],
            ["", comparison.right.label, *_values(row.right, sd), speeds[1], f"ratio {ratio}"],
        ]
        if row.name in exact:
            lines.append(["", "exact", *_values(exact[row.name], sd), "", ""])
    more = len(comparison.table) - ROWS_SHOWN
    end = f"... and {more} more in .table\n" if more > 0 else ""
    legend = (
        f"gap: mean of {comparison.left.label} less that of {comparison.right.label}, in sds of the"
        " latter; ratio: of their sds."
    )
    return f"{align(header, lines, left=2)}\n{end}{_filled(legend)}"


def _values(m: Moments, sd: float) -> list[str]:
    return to_sd((m.mean, m.sd, m.hdi_low, m.hdi_high), sd)


def with_error(value: float, error: float) -> str:
    """A value with its standard error, both to the error's second digit at most."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return "-"
    digits = 3 if error <= 0 else min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _distances(comparison: ComparisonFacts) -> str:
    d, left, right = comparison.distances, comparison.left.label, comparison.right.label
    rows = [
        [f"{left} to {right}", short(d.between, 3)],
        [f"between halves of {left}", short(d.halves[0], 3)],
        [f"between halves of {right}", short(d.halves[1], 3)],
    ]
    if d.to_exact is not None and d.exact_floor is not None:
        rows += [
            [f"{left} to exact", short(d.to_exact[0], 3)],
            [f"{right} to exact", short(d.to_exact[1], 3)],
            ["exact to exact", short(d.exact_floor, 3)],
        ]
    title = f"sliced Wasserstein distance, in sds, of {d.draws} draws (halves: {d.draws // 2})"
    return align([title, ""], rows)


def stands_out(comparison: ComparisonFacts) -> list[str]:
    """What stands out."""
    left, right = comparison.left, comparison.right
    words = [_apart(comparison.table, f"{left.label} and {right.label}")]
    if comparison.against_exact is not None:
        for side, rows in zip((left, right), comparison.against_exact, strict=True):
            words.append(_apart(rows, f"{side.label} and exact draws"))
    for side in (left, right):
        if side.worst_rhat > RHAT_DISTRUST:
            words.append(
                f"The chains of {side.label} disagree (R-hat {short(side.worst_rhat)}): its errors "
                "are larger than the ± says, and it is no reference."
            )
    return words


def _apart(rows: Sequence[Row], sides: str) -> str:
    """How many means or sds differ by more than Monte-Carlo error explains."""
    apart = [
        r
        for r in rows
        if abs(r.mean_difference) > STANDARD_ERRORS * r.mean_difference_se
        or abs(r.sd_ratio - 1) > STANDARD_ERRORS * r.sd_ratio_se
    ]
    if not apart:
        return f"{sides}: no mean or sd differs by more than {STANDARD_ERRORS} standard errors."
    worst = max(apart, key=lambda r: max(abs(r.mean_difference), abs(r.sd_ratio - 1)))
    return (
        f"{sides}: {len(apart)} of {len(rows)} scalars differ in mean or sd by more than "
        f"{STANDARD_ERRORS} standard errors, most of all {worst.name}: mean "
        f"{worst.mean_difference:+.2g} sd, sd ratio {worst.sd_ratio:.2g}."
    )
