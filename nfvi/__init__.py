"""Variational inference with normalizing flows from a formula, on PyTorch and Pyro."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nfvi.autoguide import AutoFlow
from nfvi.budget import Budget
from nfvi.calibration import Calibration, calibrate
from nfvi.compare import Comparison, compare
from nfvi.density_fit import DensityFit
from nfvi.errors import FitError, FormulaError, TargetError
from nfvi.evidence import EvidenceComparison, compare_evidence
from nfvi.fit import Fit
from nfvi.formula import Formula
from nfvi.guide import Guide
from nfvi.inference import NFVI
from nfvi.mcmc import hmc, nuts
from nfvi.mcmc_run import MCMCRun
from nfvi.mixture_guide import MixtureGuide
from nfvi.targets import LogDensity, PyroTarget, Target, as_target, log_density
from nfvi.training.callbacks import (
    CheckElboConvergence,
    CheckParametersConvergence,
    Checkpoint,
    GradientTracker,
    ProgressBar,
    TensorBoard,
    Tracker,
)
from nfvi.training.state import Callback, Stop, TrainState

if TYPE_CHECKING:
    from nfvi.sklearn_density import FlowDensity

__version__ = version("nfvi")

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
    "FlowDensity",
    "Formula",
    "FormulaError",
    "GradientTracker",
    "Guide",
    "LogDensity",
    "MCMCRun",
    "MixtureGuide",
    "ProgressBar",
    "PyroTarget",
    "Stop",
    "Target",
    "TargetError",
    "TensorBoard",
    "Tracker",
    "TrainState",
    "as_target",
    "calibrate",
    "compare",
    "compare_evidence",
    "hmc",
    "log_density",
    "nuts",
]


def __getattr__(name: str) -> Any:
    # scikit-learn is an extra, and is imported by those who ask for it.
    if name == "FlowDensity":
        from nfvi.sklearn_density import FlowDensity

        return FlowDensity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
