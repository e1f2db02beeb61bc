"""Callbacks: what can watch, record, stop and save a running fit."""

from nfvi.training.callbacks.progress_bar import ProgressBar, with_progress

__all__ = ["ProgressBar", "with_progress"]
