"""A row of benchmarks.posteriors about a fit: how good it is, what it cost, what it says."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.posteriors.accuracy import first_for_good
from benchmarks.posteriors.cases import Case, modes_found
from benchmarks.posteriors.store import Row
from nfvi import NFVI, Fit
from nfvi.auto.missed import cover_missed_mass
from nfvi.errors import FitError
from nfvi.fit import KHAT_LIMIT, WeightedDraws, diagnose, draw_weighted
from nfvi.guides import AnyGuide, parts

__all__ = ["CRASHES", "DRAWS", "check_complete", "fit_row", "guide_quality"]

DRAWS = 100_000
RUNG_DRAWS = 20_000
CRASHES = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)
"""What a fit may end with: all that is an error of the package and no wish of the user."""


def fit_row(case: Case, formula: str, seed: int) -> Row:
    """Fit with default settings, and measure.

    Args:
        case: what is fitted.
        formula: ``"auto"``, or flows.
        seed: of the fit.

    Returns:
        The numbers; b², ELBO and evidence from 100 000 draws, k-hat as the fit itself shows it.

    Raises:
        KeyboardInterrupt: the fit was interrupted.
    """
    cpu = time.process_time()
    with timed_search() as searched:
        fit = NFVI(formula, seed=seed).fit(case.target, progress=False)
    cpu = time.process_time() - cpu
    check_complete(fit)
    final = guide_quality(case, fit.guide, DRAWS, seed)
    path = [_rung_row(case, rung, seed) for rung in getattr(fit, "path", None) or ()]
    row = {
        "dim": case.target.dim,
        "formula": str(fit.formula),
        "components": len(parts(fit.guide)),
        "stopped": fit.stopped,
        **final,
        **_gap(case, final),
        "khat_draws": final["khat"],
        "khat": fit.khat,
        "warns": "not reliable" in str(fit),
        "steps": fit.steps,
        "gradient_evaluations": fit.gradient_evaluations,
        "batched_evaluations": getattr(fit, "batched_evaluations", fit.steps),
        "wall_time": fit.wall_time,
        "cpu_time": cpu,
        "search_cpu_time": searched.seconds,
        "search_clean": None if fit.missed is None else fit.missed.clean,
        "missed_share": None if fit.missed is None else fit.missed.share,
        "verdict": fit.verdict.word,
        "path": path,
    }
    return {**row, **_to_accuracy(row), **_verified(fit)}


@dataclass
class SearchTime:
    """CPU seconds that fits have spent on mass that no start found."""

    seconds: float = 0.0


@contextmanager
def timed_search() -> Iterator[SearchTime]:
    """Count what ``NFVI("auto")`` spends on the search for missed mass."""
    spent = SearchTime()

    def timed(*args: Any) -> None:
        started = time.process_time()
        try:
            cover_missed_mass(*args)
        finally:
            spent.seconds += time.process_time() - started

    with patch("nfvi.auto.climb.cover_missed_mass", timed):
        yield spent


def check_complete(fit: Fit) -> None:
    """Ctrl-C ends a fit early, with what it has; here that is no result.

    Raises:
        KeyboardInterrupt: it did.
    """
    path = getattr(fit, "path", None)
    if "interrupted" in (fit.stopped, getattr(path, "reason", None)):
        raise KeyboardInterrupt


def guide_quality(case: Case, guide: AnyGuide, draws: int, seed: int) -> Row:
    """b² of raw and of Pareto-smoothed weighted draws, ELBO, evidence and k-hat of a guide."""
    generator = torch.Generator(guide.device).manual_seed(seed + 1)
    weighted = draw_weighted(guide, case.target, draws, generator)
    found = diagnose(weighted)
    modes = modes_found(case.target, weighted.z)
    return {
        **_bias(case, weighted),
        "khat": found.khat,
        "efficiency": found.efficiency,
        "elbo": found.elbo,
        "elbo_se": found.elbo_se,
        "log_evidence": found.log_evidence,
        "log_evidence_se": found.log_evidence_se,
        "not_finite": found.not_finite,
        **({} if modes is None else {"modes": modes[0], "modes_all": modes[1]}),
    }


def _bias(case: Case, draws: WeightedDraws) -> Row:
    with torch.no_grad():
        sites = case.target.constrain(draws.z)
    raw = case.reference.bias(sites)
    row = {"b2_raw_worst": raw.worst, "b2_raw_average": raw.average}
    weights = draws.log_weights.exp()
    if not abs(weights.sum().item() - 1) < 1e-6:  # no draw has any weight
        return {**row, "b2_psis_worst": math.nan, "b2_psis_average": math.nan}
    psis = case.reference.bias(sites, weights)
    return {**row, "b2_psis_worst": psis.worst, "b2_psis_average": psis.average}


def _gap(case: Case, found: Row) -> Row:
    """What is known of log Z beside what was found; the gap log Z − ELBO is KL(q ‖ p)."""
    if case.log_z is None:
        return {"log_z": None, "gap": None, "gap_se": None}
    return {
        "log_z": case.log_z,
        "log_z_se": case.log_z_se,
        "gap": case.log_z - found["elbo"],
        "gap_se": math.hypot(case.log_z_se, found["elbo_se"]),
    }


def _rung_row(case: Case, rung: Any, seed: int) -> Row:
    """A rung of ``fit.path``; its costs are those of all rungs up to it."""
    found = guide_quality(case, rung.guide, RUNG_DRAWS, seed)
    return {
        "formula": str(rung.formula),
        "elbo": found["elbo"],
        "khat": rung.khat,
        "efficiency": found["efficiency"],
        "b2_raw_worst": found["b2_raw_worst"],
        "b2_psis_worst": found["b2_psis_worst"],
        "batched_evaluations": rung.batched_evaluations,
        "gradient_evaluations": rung.gradient_evaluations,
        "wall_time": rung.wall_time,
    }


def counted(row: Row) -> str:
    """Which b² counts: that of weighted draws where k-hat allows them, else that of raw ones."""
    return "b2_psis_worst" if row["khat"] < KHAT_LIMIT else "b2_raw_worst"


def _to_accuracy(row: Row) -> Row:
    """What it cost until b² was below 0.01 for good; the whole fit counts as the last rung.

    A rung after which a later one was worse does not count, even where the fit kept the better.
    """
    rungs = [*row["path"], row]
    first = first_for_good([rung[counted(rung)] for rung in rungs])
    if first is None:
        return {"to_accuracy": None, "to_accuracy_by": counted(row)}
    at = rungs[first]
    return {
        "to_accuracy": at["batched_evaluations"],
        "to_accuracy_points": at["gradient_evaluations"],
        "to_accuracy_time": at["wall_time"],
        "to_accuracy_formula": at["formula"],
        "to_accuracy_by": counted(at),
    }


def _verified(fit: Fit) -> Row:
    """What ``fit.verify()`` says; a fit that it refuses to check has not passed."""
    started = time.perf_counter()
    try:
        found = fit.verify()
    except FitError as error:
        return {"verify_passed": False, "verify_wrong": [], "verify_error": str(error)}
    return {
        "verify_passed": found.passed,
        "verify_wrong": [check.name for check in found.checks if not check.passed],
        "verify_scalars": len(found.checks),
        "verify_settled": found.settled,
        "verify_evaluations": found.gradient_evaluations,
        "verify_time": time.perf_counter() - started,
    }
