"""Variational inference with normalizing flows from a formula, on PyTorch and Pyro."""

import logging as _logging
from typing import TYPE_CHECKING, Any

from nfvi._version import __version__ as __version__
from nfvi.assess import (
    Calibration,
    Comparison,
    EvidenceComparison,
    calibrate,
    compare,
    compare_evidence,
)
from nfvi.auto import Budget
from nfvi.density import DensityFit
from nfvi.errors import FitError, FitWarning, FormulaError, TargetError
from nfvi.fit import Fit, Verdict
from nfvi.formula import Formula
from nfvi.guides import AutoFlow, Guide, MixtureGuide
from nfvi.inference import NFVI
from nfvi.mcmc import MCMCRun, hmc, nuts
from nfvi.search import MissedMass
from nfvi.targets import (
    JaxLogDensity,
    LogDensity,
    NamedDensity,
    NumPyroTarget,
    PyMCTarget,
    PyroTarget,
    RowsTarget,
    StanTarget,
    Target,
    as_target,
    log_density,
)
from nfvi.training import (
    Callback,
    CheckElboConvergence,
    CheckParametersConvergence,
    Checkpoint,
    GradientTracker,
    NaturalGradient,
    ProgressBar,
    Stop,
    TensorBoard,
    Tracker,
    TrainState,
)
from nfvi.utils import show_versions

if TYPE_CHECKING:
    from nfvi.sklearn import FlowDensity

__all__ = [
    "NFVI",
    "AutoFlow",
    "Budget",
    "Calibration",
    "Callback",
    "CheckElboConvergence",
    "CheckParametersConvergence",
    "Checkpoint",
    "Comparison",
    "DensityFit",
    "EvidenceComparison",
    "Fit",
    "FitError",
    "FitWarning",
    "FlowDensity",
    "Formula",
    "FormulaError",
    "GradientTracker",
    "Guide",
    "JaxLogDensity",
    "LogDensity",
    "MCMCRun",
    "MissedMass",
    "MixtureGuide",
    "NamedDensity",
    "NaturalGradient",
    "NumPyroTarget",
    "ProgressBar",
    "PyMCTarget",
    "PyroTarget",
    "RowsTarget",
    "StanTarget",
    "Stop",
    "Target",
    "TargetError",
    "TensorBoard",
    "Tracker",
    "TrainState",
    "Verdict",
    "as_target",
    "calibrate",
    "compare",
    "compare_evidence",
    "hmc",
    "log_density",
    "nuts",
    "show_versions",
]

# Silent until somebody asks, as libraries are; docs/training.md says how to listen.
_logging.getLogger("nfvi").addHandler(_logging.NullHandler())


def __getattr__(name: str) -> Any:
    # scikit-learn is an extra, and is imported by those who ask for it.
    if name == "FlowDensity":
        from nfvi.sklearn import FlowDensity

        return FlowDensity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
