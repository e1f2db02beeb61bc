"""The fitting loop: draws or rows, loss, backward, guard, step, schedule, callbacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, optim

from nfvi.training.calls import goes_last, groups_of, next_look, opened, wants_groups
from nfvi.training.ensemble import Ensemble
from nfvi.training.failure import failure, late_errors
from nfvi.training.group_gradients import by_group
from nfvi.training.history import mean_and_error
from nfvi.training.interrupt import catch_interrupt
from nfvi.training.loop_state import LoopState
from nfvi.training.natural_gradient import NaturalGradient, ScoredDraws
from nfvi.training.objectives import Objective, ReverseKL
from nfvi.training.optimizers import keep_rows
from nfvi.training.pieces import accumulated
from nfvi.training.ranks import STOPS, Found
from nfvi.training.snapshot import hand_back, snapshot
from nfvi.training.state import CallbackLike, Stop, TrainState
from nfvi.training.step import EAGER
from nfvi.utils import keep_freed_memory

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer(LoopState):
    """Minimises an objective over the parameters of an ensemble of guides.

    Its arguments and attributes are those of :class:`~nfvi.training.loop_state.LoopState`.
    """

    def run(self, callbacks: Sequence[CallbackLike] = (), steps: int | None = None) -> str:
        """Go on to the end of the schedule, or for so many steps.

        A trainer brought back from a checkpoint continues to where the run that wrote it was to
        end, and not at all if a callback had stopped that run.

        Args:
            callbacks: called after every step, in this order but for those that go last.
            steps: how many; what goes past the end of the schedule becomes a new cycle of it.

        Returns:
            Why it ended: ``"steps"``, ``"converged"`` by a
            :class:`~nfvi.training.controls.Plateau`, ``"interrupted"``, or the reason of a
            callback.

        Raises:
            FitError: every restart was dropped; or a step raised, whose exception is the
                ``__cause__``. ``error.guide`` is the last good guide.
            TargetError: the target changed what it returns; likewise.
            ValueError: the callbacks are not those whose records a checkpoint holds.
        """
        if steps is not None:
            self.last, self.stopped = self.step + steps, None
        if self.last > self.schedule.steps:
            self.schedule = self.schedule.extend(self.last - self.schedule.steps)
            self.ending = "steps"
        keep_freed_memory()
        callbacks = sorted(callbacks, key=goes_last)
        state = TrainState(self, partial(snapshot, self, callbacks))
        if self.recorded is not None:
            hand_back(self.recorded, callbacks)
            self.recorded = None
        self.ranks.begin(self.settings, self.step, self._starts())
        started = time.perf_counter() - self.wall_time
        running = self.traced.running(self, wants_groups(callbacks))
        with catch_interrupt() as interruption, opened(callbacks, state), running:
            while self.step < self.last and self.stopped is None:
                with late_errors(self):
                    self._advance(callbacks)
                self.wall_time = time.perf_counter() - started
                self._called_back(callbacks, state)
                if interruption.requested and self.stopped is None:
                    self.stopped = "interrupted"
                self.stopped = self.ranks.agreed(self.stopped, self.ensemble.flat.device)
            if self.stopped is None:
                self.stopped = self.ending if self.step >= self.schedule.steps else "steps"
        logger.info(
            "%s: ended after %d steps, %.1f s: %s; steps were %s",
            *(self.settings.get("formula", "run"), self.step, self.wall_time, self.stopped),
            self.settings.get("evaluation", "as written"),
        )
        return self.stopped

    def _called_back(self, callbacks: Sequence[CallbackLike], state: TrainState) -> None:
        try:
            for callback in callbacks:
                answer = callback(state)
                if isinstance(answer, Stop) and self.stopped is None:
                    self.stopped = answer.reason
        except STOPS as error:
            self.ranks.raised(error, self.ensemble.flat.device)
            raise

    def _starts(self) -> list[Tensor]:
        """What a run starts from, on the device of the guides."""
        return [self.ensemble.flat, self.last_good, *self.ensemble.fixed.values()]

    @torch.enable_grad()
    def _advance(self, callbacks: Sequence[CallbackLike]) -> None:
        """Do the next step, or as many as nobody wants to see one by one."""
        done = 0
        if self.traced.ahead:
            looks = [next_look(each, self.step) for each in (*self.controls, *callbacks)]
            most = min([*looks, self.last]) - self.step
            done = self.traced.advance(self, most, partial(self._one_step, 0))
        if not done:
            self._one_step(max((groups_of(c, self.step + 1) for c in callbacks), default=0))
        for control in self.controls:
            control(self)

    @torch.enable_grad()
    def _one_step(self, groups: int, batch: Any = None) -> None:
        """The next step as it is written, on a batch, or one that it draws."""
        flat, step = self.ensemble.flat, self.step
        factor = self.schedule(step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = self.traced.rate(peak * factor)
        beta = self.tempering(step, flat)
        if batch is None:
            batch = self.objective.draw(self.ensemble, step, self.generator)
        flat.grad = None
        terms, quantity, self.group_gradients = self._differentiated(batch, beta, groups)
        self.tempering.observe(step, terms, quantity)
        loss = terms.mean(1)
        self.gradient = torch.zeros_like(flat) if flat.grad is None else flat.grad
        raw = self.gradient.clone() if not bool(self.gradient.isfinite().all()) else self.gradient
        good, norm = self.guard(loss, self.gradient)
        self.last_good = torch.where(good.unsqueeze(1), flat.detach(), self.last_good)
        self._update(good, batch, beta)
        numbers = mean_and_error(self.objective.quantity, quantity)
        self.history.append(
            self.peaks[0] * factor,
            terms.shape[1],
            loss=self.whole(loss),
            grad_norm=self.whole(norm),
            beta=self.whole(beta),
            **{name: self.whole(value) for name, value in numbers.items()},
        )
        if not bool(self.guard.alive.any()):
            raise failure(self, loss, raw)

    def _differentiated(self, batch: Any, beta: Tensor, groups: int = 0) -> Found:
        """What a step is evaluated to; the gradient is left in ``.grad``."""
        groups = min(groups, self.objective.length(batch) // self.ranks.size) if groups else 0
        evaluate = partial(self._differentiate, groups=groups)
        found = self.ranks.evaluated(evaluate, self.ensemble, self.objective, batch, beta)
        self.gradient_evaluations += found.terms.numel()
        return found

    def _differentiate(
        self, ensemble: Ensemble, objective: Objective, batch: Any, beta: Tensor, groups: int
    ) -> Found:
        """The same of the share of this process."""
        flat = ensemble.flat
        pieces = objective.pieces(ensemble, batch)
        if len(pieces) > 1:
            self.settings["evaluation"] = EAGER + "a step goes in pieces, to fit into memory"

            def evaluate(piece: Any) -> tuple[Tensor, Tensor]:
                self.batched_evaluations += 1
                return objective(ensemble, piece, beta)

            return Found(*accumulated(evaluate, pieces, flat, groups))
        self.batched_evaluations += 1
        if not groups:
            found = self.traced(ensemble, objective, batch, beta, self.step)
            self.settings["evaluation"] = self.traced.text
            if found is not None:
                flat.grad = found.gradient
                return Found(found.terms, found.quantity, None)
        terms, quantity = objective(ensemble, pieces[0], beta)
        by_groups = by_group(terms, flat, groups) if groups else None
        # Not of all leaves: a target may hold a user's parameters, whose .grad is not ours.
        terms.mean(1).sum().backward(inputs=[flat])
        return Found(terms.detach(), quantity, by_groups)

    def _update(self, good: Tensor, batch: Any, beta: Tensor) -> None:
        before = None if self.rates is None else self.ensemble.flat.detach().clone()
        if bool(good.all()):
            self.optimizer.step(self._closure(batch, beta))
            self._scale_step(before)
            if not bool(self.ensemble.flat.isfinite().all()):
                self._take_back()
        elif bool(good.any()):
            restore = keep_rows(self.optimizer, self.ensemble.flat)
            self.optimizer.step(self._closure(batch, beta))
            self._scale_step(before)
            restore(good)

    @torch.no_grad()
    def _scale_step(self, before: Tensor | None) -> None:
        if before is not None and self.rates is not None:
            self.ensemble.flat.copy_(before.lerp(self.ensemble.flat, self.rates.unsqueeze(1)))

    @torch.no_grad()
    def _take_back(self) -> None:
        """Undo a step that left the range of floats, as a line search can."""
        flat = self.ensemble.flat
        finite = flat.isfinite().all(1)
        flat.copy_(torch.where(finite.unsqueeze(1), flat, self.last_good))
        self.guard.skipped += ~finite
        # What the optimiser remembers of that step would spoil the next one too.
        self.optimizer.state.clear()

    def _closure(self, batch: Any, beta: Tensor) -> Any:
        """What an optimiser calls: the loss again on the draws or rows of this step, for one."""
        if isinstance(self.optimizer, NaturalGradient) and isinstance(self.objective, ReverseKL):
            return ScoredDraws(self.ensemble, self.objective, batch, beta)
        if not isinstance(self.optimizer, optim.LBFGS):
            return None

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            return self._differentiated(batch, beta).terms.mean()

        return closure
