"""A row of benchmarks.multimodal about a fit: its answer, its verdict, its cost."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.multimodal.judge import class_of
from benchmarks.multimodal.problem import Problem
from benchmarks.posteriors.rows import check_complete
from benchmarks.posteriors.store import Row
from nfvi import NFVI, Fit
from nfvi.guides import parts

__all__ = ["DRAWS", "errors_of", "fit_row"]

DRAWS = 50_000
"""A mean of plain ones is known to 0.0045 sd."""


def fit_row(problem: Problem, seed: int, budget: float | None = None) -> Row:
    """Fit with default settings, and hold the answer against what is known.

    Times are those of the fit and of its verdict.

    Args:
        problem: what is fitted.
        seed: of the fit.
        budget: seconds; ``None`` for no limit.

    Raises:
        KeyboardInterrupt: the fit was interrupted.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    fit = NFVI("auto", seed=seed).fit(problem.target(), budget=budget, progress=False)
    check_complete(fit)
    verdict = fit.verdict
    cost = {"wall_time": time.perf_counter() - wall, "cpu_time": time.process_time() - cpu}
    error = None if problem.log_z is None else fit.log_evidence - problem.log_z
    row: Row = {
        "dim": problem.dim,
        "formula": str(fit.formula),
        "components": len(parts(fit.guide)),
        "stopped": fit.stopped,
        "verdict": verdict.word,
        "reasons": list(verdict.reasons),
        "khat": fit.khat,
        "elbo": fit.elbo,
        "log_evidence": fit.log_evidence,
        "log_evidence_se": fit.log_evidence_se,
        "log_z": problem.log_z,
        "log_z_se": problem.log_z_se,
        "log_z_error": error,
        **_errors(problem, fit, seed),
        **_search(fit),
        "gradient_evaluations": fit.gradient_evaluations,
        "batched_evaluations": fit.batched_evaluations,
        "value_evaluations": fit.path.value_evaluations,
        **cost,
    }
    return {**row, "class": class_of({**row, "status": "ok"})}


def errors_of(problem: Problem, z: Tensor, weights: Tensor) -> Row:
    """Errors of means and sds, and the mass of the modes that were found; ``None`` if not known.

    Args:
        problem: what is known.
        z: draws (n, d).
        weights: of the draws (n), with the sum 1.
    """
    z, weights = z.double(), weights.double()
    mean, sd = problem.moments.errors(z, weights) if problem.moments else (None, None)
    modes = problem.modes.found(z, weights) if problem.modes else None
    return {"mean_error": mean, "sd_error": sd, "modes": modes}


@torch.no_grad()
def _errors(problem: Problem, fit: Fit, seed: int) -> Row:
    draws = fit.weighted_draws(DRAWS, seed=seed + 1)
    plain = torch.full((DRAWS,), 1 / DRAWS, dtype=torch.float64)
    # A draw without any weight may be infinite, and 0 · ∞ is no number.
    weights = draws.log_weights.exp()
    used = weights > 0
    return {
        "plain": errors_of(problem, draws.z, plain),
        "weighted": errors_of(problem, draws.z[used], weights[used]),
    }


def _search(fit: Fit) -> Row:
    """What the search for missed mass found, of which the verdict knows."""
    missed = fit.missed
    if missed is None:
        return {"clean": None, "missed_share": None, "search_draws": 0}
    return {
        "clean": missed.clean,
        "missed_share": missed.share,
        "search_draws": missed.draws,
    }
