"""Held-out rows: their likelihood as a fit continues, the best state, and when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.density.likelihood import Rows, log_likelihood_of
from nfvi.guides import Guide
from nfvi.training import Callback, Stop, TrainState
from nfvi.utils import next_multiple, over, under

__all__ = ["Validation", "ValidationRecord"]


@dataclass(frozen=True)
class ValidationRecord:
    """The log-likelihood of held-out rows in the course of a fit.

    Attributes:
        steps: optimiser steps done at each look (looks).
        log_likelihood: mean over the held-out rows (looks), nats a row in the units of the data.
        best: the look whose parameters were kept.
    """

    steps: Tensor
    log_likelihood: Tensor
    best: int

    @property
    def best_step(self) -> int:
        """Steps done when the parameters that were kept were reached."""
        return int(self.steps[self.best])


class Validation(Callback):
    """Looks at held-out rows, keeps the best parameters, and stops after too many vain looks.

    Args:
        rows: held out, standardised.
        log_scale: as for :class:`~nfvi.density.likelihood.MaximumLikelihood`.
        every: steps between looks; there is one after the last step in any case.
        patience: looks without a higher log-likelihood after which the fit stops.
    """

    def __init__(self, rows: Rows, log_scale: float, every: int, patience: int) -> None:
        self.rows, self.log_scale = rows, log_scale
        self.every, self.patience = every, patience
        self._steps: list[int] = []
        self._values: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._waited = 0

    @property
    def record(self) -> ValidationRecord | None:
        """The looks so far; ``None`` before the first one at which any row had a density."""
        if not self._best:
            return None
        values = torch.tensor(self._values, dtype=torch.float64)
        best = max(range(len(self._values)), key=lambda i: _rank(self._values[i]))
        return ValidationRecord(torch.tensor(self._steps), values, best)

    def restore(self, guide: Guide) -> Guide:
        """Put the best parameters into a guide; one from before the first look stays as it is."""
        if self._best:
            guide.load_state_dict(self._best)
        return guide

    def open(self, state: TrainState) -> None:
        if self._waited >= self.patience:  # the fit was stopped, and is continued all the same
            self._waited = 0

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        if state.step % self.every and state.step != state.steps:
            return None
        guide = state.guide(0)
        value = self.mean(log_likelihood_of(guide, self.rows))
        highest = max(map(_rank, self._values), default=-math.inf)
        self._steps.append(state.step)
        self._values.append(value)
        if _rank(value) > highest:
            self._best = {name: t.detach().clone() for name, t in guide.state_dict().items()}
            self._waited = 0
            return None
        self._waited += 1
        if self._waited < self.patience:
            return None
        return Stop(f"the held-out rows gained nothing in {self.patience} looks")

    def mean(self, log_q: Tensor) -> float:
        """The (weighted) mean of log q (n), in the units of the data."""
        log_q = log_q.double()
        if self.rows.weights is not None:
            log_q = log_q * self.rows.weights.double()
        return float(log_q.mean()) - self.log_scale

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "steps": torch.tensor(self._steps),
            "values": torch.tensor(self._values, dtype=torch.float64),
            "waited": torch.tensor(self._waited),
            **over("best.", self._best),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._steps, self._values = state["steps"].tolist(), state["values"].tolist()
        self._waited = int(state["waited"])
        self._best = under("best.", state)


def _rank(value: float) -> float:
    """Where a mean stands among others: one that is no number comes last."""
    return value if math.isfinite(value) else -math.inf
