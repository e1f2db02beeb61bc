"""What a fit to a target gives: its guide, how good that is, and what can be done with it."""

from nfvi.fit.approximation import Approximation
from nfvi.fit.combine import outcome
from nfvi.fit.diagnostics import (
    KHAT_LIMIT,
    Diagnostics,
    WeightedDraws,
    diagnose,
    draw_weighted,
    elbo_of,
    smoothed_weights,
)
from nfvi.fit.evaluation import evaluate
from nfvi.fit.fit import Fit
from nfvi.fit.fitted_guide import FittedGuide
from nfvi.fit.mixture_weights import draws_of_each, mixture_weights
from nfvi.fit.path import ClimbPath, Rung
from nfvi.fit.restarts import Restart
from nfvi.fit.scalars import draws_frame, summarize, summary_lines
from nfvi.fit.verdict import NOT_TRUSTED, Findings, Verdict, VerdictWord, judge

__all__ = [
    "KHAT_LIMIT",
    "NOT_TRUSTED",
    "Approximation",
    "ClimbPath",
    "Diagnostics",
    "Findings",
    "Fit",
    "FittedGuide",
    "Restart",
    "Rung",
    "Verdict",
    "VerdictWord",
    "WeightedDraws",
    "diagnose",
    "draw_weighted",
    "draws_frame",
    "draws_of_each",
    "elbo_of",
    "evaluate",
    "judge",
    "mixture_weights",
    "outcome",
    "smoothed_weights",
    "summarize",
    "summary_lines",
]
