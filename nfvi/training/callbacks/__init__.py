"""Callbacks: what can watch, record, stop and save a running fit."""

from nfvi.training.callbacks.checkpoint import Checkpoint
from nfvi.training.callbacks.convergence import (
    CheckElboConvergence,
    CheckParametersConvergence,
    gain_between,
)
from nfvi.training.callbacks.gradient_tracker import GradientTracker
from nfvi.training.callbacks.progress_bar import ProgressBar, has_bar, with_progress
from nfvi.training.callbacks.tensorboard import TensorBoard
from nfvi.training.callbacks.tracker import Tracker

__all__ = [
    "CheckElboConvergence",
    "CheckParametersConvergence",
    "Checkpoint",
    "GradientTracker",
    "ProgressBar",
    "TensorBoard",
    "Tracker",
    "gain_between",
    "has_bar",
    "with_progress",
]
