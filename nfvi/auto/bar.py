"""The one bar of a whole climb: its stage, its time, what is left of the budget, and how good."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from nfvi.auto.budget import Budget
from nfvi.training import Trainer
from nfvi.utils import stage_bar

__all__ = ["ClimbBar"]

EVERY = 0.1
"""Seconds between drawings: a terminal over a slow line keeps up with that."""

RECENT = 50
"""Steps whose mean is the ELBO that is shown of a run."""


class ClimbBar:
    """A bar from the first second of a climb to its last; one that is not shown does nothing.

    Args:
        shown: whether there is to be one.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self._bar: Any = None
        self._stage, self._drawn = "", 0.0

    def open(self, limited: bool) -> None:
        """Draw it for the first time; what a budget has left is a length where it is limited."""
        if self.shown:
            self._bar = stage_bar("auto", limited)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._bar.fp)

    def stage(self, name: str) -> None:
        """What is done from now on."""
        self._stage, self._drawn = name, 0.0

    def due(self) -> bool:
        """Whether it is shown, and was drawn long enough ago."""
        return self._bar is not None and time.perf_counter() - self._drawn >= EVERY

    def draw(
        self,
        budget: Budget,
        seconds: float,
        steps: int,
        gradients: int,
        elbo: float,
        khat: float,
        running: Trainer | None = None,
    ) -> None:
        """Draw it.

        Args:
            budget: of the climb.
            seconds: so far, and the next two without what runs.
            steps: so far.
            gradients: so far.
            elbo: of the best rung; NaN if there is none.
            khat: likewise.
            running: the run of a rung, which shows its own ELBO.
        """
        step = ""
        if running is not None:
            steps, gradients = steps + running.step, gradients + running.gradient_evaluations
            step = f" {running.step:,}/{running.last:,}"
            elbo = _running_elbo(running, elbo)
        used, left = budget.left(seconds, steps, gradients)
        numbers = (f"ELBO {elbo:.3f}", elbo), (f"k-hat {khat:.2f}", khat)
        known = [left] * bool(left) + [text for text, value in numbers if math.isfinite(value)]
        self._bar.n = min(used, 1.0)
        self._bar.set_description_str(f"auto: {self._stage}{step}", refresh=False)
        self._bar.set_postfix_str(", ".join(known), refresh=False)
        self._bar.refresh()
        self._drawn = time.perf_counter()

    def close(self, whole: bool) -> None:
        """End its line; a climb that ended by itself is whole, whatever its budget had left."""
        if self._bar is None:
            return
        if whole:
            self._bar.n = 1.0
        self._bar.close()


def _running_elbo(running: Trainer, otherwise: float) -> float:
    """Of the best restart in the last steps; of a run that has no ELBO, the other one."""
    if running.history.quantity != "elbo" or not running.step:
        return otherwise
    recent = running.history.last("elbo", RECENT).nanmean(0)
    return float(recent.nan_to_num(-torch.inf).max())
