"""NFVI("auto"): from Gaussians to learned flows of growing size, until the answer is good."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from nfvi.auto.failure import broken_off, is_late
from nfvi.auto.gaussians import gaussian_rungs, mode_rungs, nothing_finite
from nfvi.auto.record import CLOSE, Record, Tried, described, rank
from nfvi.auto.rungs import (
    Learned,
    candidates,
    grown_guides,
    heavier,
    learned_rungs,
    plan_of,
    prolonged,
    tailed_rung,
)
from nfvi.errors import FitError, TargetError
from nfvi.fit import KHAT_LIMIT, ClimbPath, Rung
from nfvi.guides import AnyGuide, Guide, Placement, parts
from nfvi.targets import Target
from nfvi.training import CallbackLike, Stop, Trainer, TrainState, build_trainer

if TYPE_CHECKING:
    from nfvi.auto.budget import Budget

__all__ = ["AUTO", "Climb", "climb"]

AUTO = "auto"
# (k-hat, nats): a guide is good below both, and good enough below the second pair where heavier
# tails have been tried.
GOOD, GOOD_ENOUGH = (0.5, 0.002), (KHAT_LIMIT, 0.001)
LEAST_GAIN = CLOSE
NEAR = 0.05
NO_MORE = 0.8
ROUGH = 0.5

Starts = Sequence[Guide | Placement]


class ClimbOver(Exception):  # noqa: N818 (an end, and no error)
    """The climb has ended.

    Args:
        reason: why.
        cut: whether it was ended from outside: by the budget, a callback or Ctrl-C.
    """

    def __init__(self, reason: str, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.cut = reason, cut


class Climb:
    """One climb on one target.

    Args:
        target: log p.
        seed: fixes everything but what a budget in seconds cuts off.
        dtype: of the guides.
        device: of the guides.
        budget: when to stop.
        callbacks: called after every optimiser step of every rung.
        settings: what a fit keeps of its target and dtype.
    """

    def __init__(
        self,
        target: Target,
        seed: int,
        dtype: torch.dtype,
        device: torch.device | str | None,
        budget: Budget,
        callbacks: Sequence[CallbackLike],
        settings: dict[str, Any],
    ) -> None:
        self.target, self.seed, self.dtype = target, seed, dtype
        self.callbacks, self.settings = callbacks, settings
        self.generator = torch.Generator(device or "cpu").manual_seed(seed)
        self.record = Record(target, seed, budget, settings)

    def run(self) -> ClimbOver:
        """Climb to the end, and say why that was.

        Raises:
            FitError: no Gaussian with a finite ELBO was found; or the target raised, and
                ``error.guide`` is that of the best rung.
            TargetError: likewise, of a target that changed what it returns.
            KeyboardInterrupt: Ctrl-C was pressed twice before there was any guide to keep.
        """
        try:
            self._climb()
        except ClimbOver as end:
            return end
        except KeyboardInterrupt:
            if not self.record.rungs:
                raise
            return ClimbOver("interrupted", cut=True)
        except (FitError, TargetError) as error:
            if is_late(error):
                raise broken_off(self.record, error) from error.__cause__
            if not self.record.rungs or isinstance(error, TargetError):
                raise
            # Its advice, in brackets and after, is for a fit of one's own.
            what = str(error).partition(" (")[0]
            return ClimbOver(f"the next rung could not be fitted: {what}")
        return ClimbOver("the last rung was reached")

    def _climb(self) -> None:
        start = gaussian_rungs(self.record, self.generator, self.dtype)
        self._stop_if_spent()
        starts = mode_rungs(self.record, start, self.generator, self.dtype)
        self._stop_if_good()
        if self.record.last.efficiency < ROUGH and candidates(self.target.dim):
            self._tournament()
        self._ladder(starts)

    def _ladder(self, starts: Starts) -> None:
        """Learned flows of growing size, each started from the last."""
        *rungs, last = learned_rungs(self.target.dim)
        for rung in rungs:
            if self.record.last.gap <= rung.within:
                starts = self._step(rung, starts)
        self._tails_afresh(starts)
        self._step(last, starts)

    def _step(self, rung: Learned, starts: Starts) -> Starts:
        """One rung, and heavier tails where nothing else is wrong; its guides."""
        before = max(self.record.rungs, key=rank)
        guides = parts(self._learn(rung, starts))
        if self.record.last.gap <= GOOD[1] and len(guides) == 1:
            # Only the tails are wrong: heavier ones cost less than more layers.
            self._learn(heavier(rung), guides)
            self._stop_if_good(self.record.best_rung, GOOD_ENOUGH)
        self._stop_if_no_gain(before)
        return guides

    def _tails_afresh(self, starts: Starts) -> None:
        """A flow on heavier tails from the Gaussians, if no rung is to be trusted."""
        rung = tailed_rung(self.target.dim)
        if rung is None or self.record.best_rung.khat < KHAT_LIMIT:
            return
        self._learn(rung, starts)
        best = self.record.best_rung
        if best.khat < KHAT_LIMIT:
            raise ClimbOver(f"{best} has tails that the others lack: k-hat {best.khat:.2f}")

    def _tournament(self) -> None:
        """Several families in a few dimensions; the best goes on for longer."""
        place = Placement.identity(
            self.target.dim, dtype=torch.float64, device=self.generator.device
        )
        tried = candidates(self.target.dim)
        first, guides = len(self.record.rungs), []
        for rung in tried:
            guides.append(self._learn(rung, [place] * len(rung.tempered)))
            if self.record.last.gap <= NEAR and self.record.last.efficiency > ROUGH:
                break
        best = max(range(len(guides)), key=lambda i: rank(self.record.rungs[first + i]))
        longer = prolonged(tried[best])
        guide = self._learn(longer, parts(guides[best]))
        if longer.base == "normal" and self.record.last.gap <= NEAR:
            self._learn(heavier(longer), parts(guide))
        elif self.record.last.khat >= KHAT_LIMIT:
            self._learn(replace(longer, lr=longer.lr / 2), parts(guide))
        raise ClimbOver("the best of several families was fitted for longer")

    def _learn(self, rung: Learned, starts: Starts) -> AnyGuide:
        """Fit one rung and keep it."""
        made = list(grown_guides(rung, starts, self.target.dim, self.dtype, self.generator))
        settings = {**self.settings, **described(made[0])}
        plan = plan_of(rung, len(starts), self.target.dim, self.seed)
        trainer = build_trainer(_one_by_one(made), self.target, plan, None, settings)
        try:
            stopped = trainer.run([*self.callbacks, self._watch(trainer)])
        finally:
            self.record.count(trainer.step, trainer.gradient_evaluations, trainer.step)
        guide = self.record.add_run(trainer)
        if stopped != "steps":
            raise ClimbOver(stopped, cut=True)
        self._stop_if_good()
        return guide

    def _watch(self, trainer: Trainer) -> Callable[[TrainState], Stop | None]:
        """A callback that ends a rung when the budget is spent."""

        def watch(state: TrainState) -> Stop | None:
            spent = self.record.spent(trainer)
            return None if spent is None else Stop(spent)

        return watch

    def _stop_if_good(self, rung: Rung | None = None, limits: tuple[float, float] = GOOD) -> None:
        rung = self.record.last if rung is None else rung
        if rung.khat < limits[0] and rung.gap <= limits[1]:
            raise ClimbOver(
                f"{rung} is as good as can be told: k-hat {rung.khat:.2f}, and"
                f" {max(rung.gap, 0.0):.4f} nats below the log evidence"
            )
        self._stop_if_spent()

    def _stop_if_spent(self) -> None:
        spent = self.record.spent()
        if spent is not None:
            raise ClimbOver(spent, cut=True)

    def _stop_if_no_gain(self, previous: Rung) -> None:
        last = self.record.last
        gain = last.elbo - previous.elbo
        error = math.hypot(last.elbo_se, previous.elbo_se)
        if previous.steps and gain < LEAST_GAIN + error and last.efficiency > NO_MORE:
            raise ClimbOver(f"{last} gained no more than {max(gain, 0.0):.4f} nats")


def climb(
    target: Target,
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    budget: Budget,
    callbacks: Sequence[CallbackLike],
    settings: dict[str, Any],
) -> tuple[Tried, ClimbPath, str]:
    """The best guide that a climb finds, its path, and how it ended; see :class:`Climb`.

    Returns:
        The guide; the path; ``"auto"`` if the climb came to an end of its own, or else what cut it
        off: ``"interrupted"``, the budget in words, or the reason that a callback gave.

    Raises:
        FitError: not one guide with a finite ELBO was found.
    """
    whole = Climb(target, seed, dtype, device, budget, callbacks, settings)
    end = whole.run()
    path = whole.record.path(end.reason)
    found = whole.record.tried[path.best]
    if not math.isfinite(found.diagnostics.elbo):
        raise FitError(nothing_finite(target), parts(found.guide)[0])
    return found, path, end.reason if end.cut else AUTO


def _one_by_one(guides: list[Guide]) -> Callable[[torch.Generator], Guide]:
    rest = iter(guides)
    return lambda _: next(rest)
