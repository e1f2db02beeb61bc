"""What a run of the loop changes from step to step, and what may change it from within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, optim

from nfvi.guides import Guide
from nfvi.targets import Target
from nfvi.training.ensemble import Ensemble
from nfvi.training.guard import Guard
from nfvi.training.history import History
from nfvi.training.natural_gradient import check_scored
from nfvi.training.objectives import Objective, ReverseKL
from nfvi.training.optimizers import check_rates, move_rows
from nfvi.training.ranks import Ranks
from nfvi.training.schedule import LearningRate, Tempering
from nfvi.training.step import TracedStep

__all__ = ["Control", "LoopState", "Pruned"]


@dataclass(frozen=True)
class Pruned:
    """What is known of a restart that was given up.

    Attributes:
        index: its column in the history.
        step: after which it was given up.
        elbo: its ELBO then (nats), or NaN.
        elbo_se: the standard error of that.
        tempered: whether it was tempered.
        skipped: steps left out because loss or gradient were not finite.
    """

    index: int
    step: int
    elbo: float
    elbo_se: float
    tempered: bool
    skipped: int

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, for a JSON header."""
        return asdict(self)


class LoopState:
    """The parts of a fit that is running, and how far it has come; the loop itself is a Trainer.

    Args:
        ensemble: the guides; their parameters are changed in place.
        objective: the loss, and what each step evaluates it on.
        optimizer: over ``[ensemble.flat]``; its learning rates are those at the top of the
            schedule.
        schedule: learning-rate factors; its length is the number of steps.
        tempering: β of each restart.
        generator: source of the base draws, on the device of the ensemble.
        settings: JSON-able values kept in checkpoints.
        rates: factors for the learning rate of each restart (R), for an optimiser that treats
            each row by itself: row r moves by ``rates[r]`` · (its step). ``None`` for 1.
        controls: called after every step, before the callbacks.
        traced: what evaluates a step without autograd; ``None`` for none.

    Raises:
        ValueError: the optimiser is not for such an objective, or rates are no rates.

    Attributes:
        gradient_evaluations: draws at which the gradient of the loss was taken, in all restarts.
        batched_evaluations: evaluations of the loss, one after the other, all restarts in one.
        last: the step at which the run ends.
        ending: what :attr:`stopped` says once the schedule is through.
        restarts: how many there were at the start, R; the history has a column for each.
        rows: which of them each row of the ensemble is.
        pruned: those that were given up, see :class:`~nfvi.training.controls.Pruning`.
        stopped: why it ended; ``None`` while it runs and after an error.
        ranks: the processes that share each step; this one alone unless it is set.
        recorded: what a checkpoint holds of the callbacks, until a run takes it up.
        wall_time: seconds of running, up to the last step.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        objective: Objective,
        optimizer: optim.Optimizer,
        schedule: LearningRate,
        tempering: Tempering,
        generator: torch.Generator,
        settings: dict[str, Any],
        *,
        rates: Tensor | None = None,
        controls: Sequence[Control] = (),
        traced: TracedStep | None = None,
    ) -> None:
        check_scored(optimizer, objective, ensemble.flat)
        self.ensemble, self.objective = ensemble, objective
        self.optimizer, self.schedule, self.tempering = optimizer, schedule, tempering
        self.generator = generator
        self.rates, self.controls = check_rates(rates, ensemble.flat, optimizer), tuple(controls)
        self.traced = TracedStep("a short run within another") if traced is None else traced
        self.settings = {**settings, "evaluation": self.traced.text}
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self.guard = Guard(ensemble.flat.detach())
        self.history = History(objective.quantity)
        self.gradient = torch.zeros_like(ensemble.flat)
        self.last_good = ensemble.flat.detach().clone()
        self.group_gradients: Tensor | None = None
        self.gradient_evaluations = self.batched_evaluations = 0
        self.restarts, self.rows = ensemble.size, tuple(range(ensemble.size))
        self.pruned: tuple[Pruned, ...] = ()
        self.ranks = Ranks()
        self.last = schedule.steps
        self.ending = "steps"
        self.stopped: str | None = None
        self.recorded: list[tuple[str, dict[str, Tensor]]] | None = None
        self.wall_time = 0.0

    @property
    def target(self) -> Target:
        """The log-density, where the objective has one."""
        if not isinstance(self.objective, ReverseKL):
            raise AttributeError("a fit to data has no target")
        return self.objective.target

    def whole(self, values: Tensor, fill: float = torch.nan) -> Tensor:
        """Values with a row for each row of the ensemble, as one with a row for each restart."""
        if len(self.rows) == self.restarts:
            return values
        return values.new_full((self.restarts, *values.shape[1:]), fill).index_copy(
            0, torch.tensor(self.rows, device=values.device), values
        )

    def guide(self, restart: int) -> Guide:
        """A new guide with the parameters of one restart.

        Raises:
            ValueError: it was pruned.
        """
        if restart not in self.rows:
            raise ValueError(f"restart {restart} was pruned; these go on: {list(self.rows)}")
        return self.ensemble.guide(self.rows.index(restart))

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history)

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Remove all restarts but those in some rows: parameters, optimiser state and the rest.

        The history keeps its columns, with NaN from here on.
        """
        old = self.ensemble.flat
        self.ensemble.keep(rows)
        move_rows(self.optimizer, old, self.ensemble.flat, rows)
        self.guard.keep(rows)
        self.tempering = self.tempering.keep(rows)
        self.gradient, self.last_good = self.gradient[rows], self.last_good[rows]
        if self.group_gradients is not None:
            self.group_gradients = self.group_gradients[:, rows]
        if self.rates is not None:
            self.rates = self.rates[rows]
        for control in self.controls:
            control.keep(rows)
        self.rows = tuple(self.rows[r] for r in rows.tolist())


class Control:
    """What changes the course of a running fit: its length, its draws, its restarts.

    Called by the loop after every step that it wants to see, before the callbacks; it may change
    the state.

    What it decides depends on the state of the loop and on :meth:`state_dict` alone, so that a fit
    that is resumed from a checkpoint continues bit for bit.
    """

    def __call__(self, loop: LoopState) -> None:
        """Look at the loop after a step, and change it where that is due."""
        raise NotImplementedError

    def next_look(self, step: int) -> int:
        """The next step after ``step`` after which it must be called."""
        return step + 1

    def keep(self, rows: Tensor) -> None:
        """Called when all restarts but some, given by their rows, have been removed."""

    def state_dict(self, loop: LoopState) -> dict[str, Tensor]:
        """What a checkpoint must hold of it."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], loop: LoopState) -> None:
        """Take up the state from a checkpoint."""
