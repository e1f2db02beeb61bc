"""A calibration as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nfvi.assess.rank_checks import LEVEL, RankCheck
from nfvi.assess.uniformity import band
from nfvi.fit import VerdictWord
from nfvi.utils import align, card, folded, html_table, preformatted, wrapped

__all__ = ["CalibrationFacts", "calibration_html", "calibration_text"]

ROWS_SHOWN = 20
HEADER = ["", "mean rank", "spread", "p", "p of all", "the fit's draws are"]
FAILURES_SHOWN = 3
CAVEAT = (
    "Ranks are averages over data sets that the prior makes likely: a fit to one data set, yours"
    " among them, may be better or worse. For that one, see print(fit) and fit.verify()."
)


@dataclass(frozen=True)
class CalibrationFacts:
    """What the text of a :class:`~nfvi.Calibration` says, in numbers and words.

    Attributes:
        formula: of the fits.
        name: of the model.
        simulations: how many were asked for.
        done: how many have ranks.
        failures: the numbers of those whose fit failed, with the reason.
        verdicts: word -> how many fits had that verdict.
        draws: L, draws of each fit.
        weighted: whether draws were importance-resampled.
        checks: one for each scalar.
        seed: repeats the calibration.
        wall_time: seconds.
    """

    formula: str
    name: str
    simulations: int
    done: int
    failures: Mapping[int, str]
    verdicts: Mapping[VerdictWord, int]
    draws: int
    weighted: bool
    checks: tuple[RankCheck, ...]
    seed: int
    wall_time: float


def calibration_text(found: CalibrationFacts) -> str:
    """What was done, a row for each scalar, the worst first, and what it means."""
    words = [line for text in (_verdict(found), CAVEAT) for line in wrapped(text)]
    lines = [line for text in _head(found) for line in wrapped(text)]
    return "\n".join([*lines, "", _table(found), "", *words])


def _head(found: CalibrationFacts) -> list[str]:
    kind = "importance-resampled draws" if found.weighted else "draws"
    lines = [
        f"{found.formula!r} on {found.name}: {found.done:,} simulations, ranks of the true"
        f" values among {found.draws} {kind} of each fit, seed {found.seed}, {found.wall_time:.0f}"
        " s"
    ]
    missing = found.simulations - found.done - len(found.failures)
    if missing:
        lines.append(f"interrupted: {missing:,} of {found.simulations:,} simulations were not done")
    if found.failures:
        shown = list(found.failures.items())[:FAILURES_SHOWN]
        reasons = "; ".join(f"{index}: {reason}" for index, reason in shown)
        more = "; ..." if len(found.failures) > FAILURES_SHOWN else ""
        lines.append(f"{len(found.failures):,} fits failed and are left out ({reasons}{more})")
    counts = ", ".join(f"{word} {count:,}" for word, count in found.verdicts.items() if count)
    lines.append(f"verdicts on the fits, without a search for missed mass: {counts}")
    return lines


def calibration_html(found: CalibrationFacts) -> str:
    """What a notebook shows: what it means on top, a row for each scalar, and the rest folded."""
    title = f"{found.formula!r} on {found.name}: {found.done:,} simulations"
    whole = folded("all of print(...)", preformatted(calibration_text(found)))
    return card(title, _verdict(found), html_table(HEADER, _rows(found)), whole)


def _table(found: CalibrationFacts) -> str:
    rows = _rows(found)
    more = len(found.checks) - len(rows)
    return align(HEADER, rows) + (f"\n... and {more} more in .checks" if more else "")


def _rows(found: CalibrationFacts) -> list[list[str]]:
    order = sorted(found.checks, key=lambda check: check.p_value)
    return [_row(check) for check in order[:ROWS_SHOWN]]


def _row(check: RankCheck) -> list[str]:
    ps = [_chance(check.p_value), _chance(check.adjusted)]
    return [check.name, f"{check.mean:.3f}", f"{check.spread:.2f}", *ps, check.words]


def _chance(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _verdict(found: CalibrationFacts) -> str:
    wrong = sum(not check.passed for check in found.checks)
    total = len(found.checks)
    if wrong:
        return (
            f"The ranks of {wrong} of {total} scalars are not uniform (mean 0.5 and spread 1, at a"
            f" chance of {LEVEL:.0%} for all together): fits of this formula are not the posterior."
            " Try a richer one, more steps, or weighted=True."
        )
    n = found.done
    low, high = band(n, found.draws, LEVEL / total)
    reach = float(np.max(high - low)) / (2 * n)
    rest = " Some fits failed, though, and nothing is known of them." if found.failures else ""
    return (
        f"No rank departs from uniform by more than chance. {n:,} simulations see departures of an"
        f" ECDF of more than about {reach:.2f}; four times as many see half of it.{rest}"
    )
