"""NFVI("auto"): from Gaussians to learned flows of growing size, until the answer is good."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from nfvi.auto.arguments import ClimbArguments
from nfvi.auto.bar import ClimbBar
from nfvi.auto.failure import broken_off, is_late
from nfvi.auto.forecast import forecast
from nfvi.auto.gaussians import gaussian_rungs, mode_rungs, nothing_finite, places_of
from nfvi.auto.missed import cover_missed_mass
from nfvi.auto.particle_flow import learn_from_particles
from nfvi.auto.population import ENOUGH, populate
from nfvi.auto.record import CLOSE, Record
from nfvi.auto.rungs import (
    Learned,
    candidates,
    grown_guides,
    heavier,
    learned_rungs,
    plan_of,
    tailed_rung,
)
from nfvi.auto.tournament import ALL_BUT_TAILS, DONE, NEAR, tournament
from nfvi.auto.tried import Tried, described
from nfvi.errors import FitError, TargetError
from nfvi.fit import KHAT_LIMIT, ClimbPath, Rung
from nfvi.guides import AnyGuide, Guide, Placement, parts
from nfvi.search import MissedMass
from nfvi.starts import FULL_RANK_LIMIT
from nfvi.targets import graphs
from nfvi.training import Crew, NaturalGradient, Ranks, Stop, Trainer, TrainState
from nfvi.utils import keep_freed_memory

__all__ = ["AUTO", "Climb", "climb"]

logger = logging.getLogger(__name__)

AUTO = "auto"
# (k-hat, nats): a guide is good below both, and good enough below the second pair where heavier
# tails have been tried. What these limits give on ten seeds of 21 targets is in docs/posteriors.md;
# what one of them moved alone would do there is not on record.
GOOD, GOOD_ENOUGH = (0.5, ENOUGH), (KHAT_LIMIT, 0.001)
LEAST_GAIN = CLOSE
# A mixture so near to its log evidence is "good" by docs/diagnostics.md. A flow that starts from
# one place and ends further below it than NEAR has lost modes, which no more layers bring back.
FAIR_GAP = 0.02
# Below it a rung without gain may be a bad fit: the next is still tried.
NO_MORE = 0.8
# Below it no Gaussian is near: in few dimensions that is a ridge or waves, for which there are
# other families than the ladder's. Higher, easy targets pay for all of them.
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
        arguments: what is climbed, with what, and how far.
    """

    def __init__(self, arguments: ClimbArguments) -> None:
        target, seed, settings = arguments.target, arguments.seed, arguments.settings
        self.target, self.seed, self.dtype = target, seed, arguments.dtype
        self.callbacks, self.settings = arguments.callbacks, settings
        self.compile = arguments.compile
        self.generator = torch.Generator(arguments.device or "cpu").manual_seed(seed)
        self.crew = arguments.crew or Crew(Ranks(), target, self.generator.device)
        self.bar = ClimbBar(arguments.bar)
        self.record = Record(target, seed, arguments.budget, settings, self.bar)

    def run(self) -> ClimbOver:
        """Climb to the end, and say why that was.

        Raises:
            FitError: no Gaussian with a finite ELBO was found; or the target raised, and
                ``error.guide`` is that of the best rung.
            TargetError: likewise, of a target that changed what it returns.
            KeyboardInterrupt: Ctrl-C was pressed twice before there was any guide to keep.
        """
        whole = False
        keep_freed_memory()
        self.bar.open(self.record.budget.limited)
        try:
            end = self._climbed()
            end = end if end.cut else self._last_search(end)
            whole = not end.cut
            if self.record.rungs:
                self.record.stage(str(self.record.best_rung))
        finally:
            self.bar.close(whole)
        return end

    def _last_search(self, end: ClimbOver) -> ClimbOver:
        """Search once more, with the guide that would be kept, and cover what it misses."""
        try:
            cover_missed_mass(self.record, self.generator, self.dtype)
        except KeyboardInterrupt:
            return ClimbOver("interrupted", cut=True)
        return end

    def _climbed(self) -> ClimbOver:
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
        self.record.stage("time of an evaluation")
        if self.bar.shown:
            self.bar.say(forecast(self.record, self.dtype, self.generator.device))
        self.record.measure(self.dtype, self.generator.device)
        start = gaussian_rungs(self.record, self.generator, self.dtype)
        self._stop_if_spent()
        starts: Starts = mode_rungs(self.record, start, self.generator, self.dtype)
        rough = self.record.best_rung.efficiency < ROUGH
        starts = self._cover(starts)
        self._stop_if_good()
        if rough and candidates(self.target.dim):
            tournament(self.record, self._learn, self.generator.device)
            raise ClimbOver("the best of several families was fitted for longer")
        self._ladder(starts)

    def _cover(self, starts: Starts) -> Starts:
        """Gaussians for mass that no start has found; where flows are to start by now."""
        if self.target.dim > FULL_RANK_LIMIT:
            return starts
        self._populate()
        rungs = len(self.record.rungs)
        cover_missed_mass(self.record, self.generator, self.dtype)
        self._stop_if_spent()
        missed = self.record.missed
        if missed is not None and missed.improper:
            raise ClimbOver("the target is improper: log p does not fall along a line")
        if len(self.record.rungs) > rungs:
            starts = places_of(self.record.tried[-1].guide) or starts
            self._populate()
        if missed is not None and missed.crowded:
            self._particles(missed)
        return starts

    def _populate(self) -> None:
        """More Gaussians, in a few dimensions; the end, where they are good."""
        self._stop_if_good(self.record.best_rung)
        rungs = len(self.record.rungs)
        populate(self.record, self.generator, self.dtype)
        if len(self.record.rungs) > rungs:
            for limits in (DONE, ALL_BUT_TAILS):
                self._stop_if_good(self.record.best_rung, limits)

    def _particles(self, missed: MissedMass) -> None:
        """A flow from particles, for modes too many for a mixture; the end, where it is good."""
        learn_from_particles(
            self.record, missed, self.callbacks, self.generator, self.dtype, self.compile
        )
        self._stop_if_spent()
        best = self.record.best_rung
        if best is self.record.last and best.khat < KHAT_LIMIT:
            raise ClimbOver(f"modes are too many for a mixture: {best} was learned from particles")

    def _ladder(self, starts: Starts) -> None:
        """Learned flows of growing size, each started from the last."""
        *rungs, last = learned_rungs(self.target.dim)
        for rung in rungs:
            if self.record.gap() <= rung.within:
                starts = self._step(rung, starts)
            else:
                why = "%s is left out: the last ELBO is over %g nats below its log evidence"
                logger.info(why, rung.formula, rung.within)
        self._tails_afresh(starts)
        self._step(last, starts)

    def _step(self, rung: Learned, starts: Starts) -> Starts:
        """One rung, and heavier tails where it has none and nothing else is wrong; its guides."""
        before = self.record.rungs[
            max(range(len(self.record.scores)), key=self.record.scores.__getitem__)
        ]
        if len(starts) > 1:  # what lies between modes is nobody's tail
            rung = replace(rung, base="normal")
        guides = parts(self._learn(rung, starts))
        if self.record.gap() <= GOOD[1] and len(guides) == 1:
            lighter = self.record.last
            if rung.base == "normal":
                # Only the tails are wrong: heavier ones cost less than more layers.
                self._learn(heavier(rung), guides)
            self._stop_if_good(self.record.best_rung, GOOD_ENOUGH)
            self._stop_if_good(lighter, GOOD_ENOUGH)
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

    def _learn(self, rung: Learned, starts: Starts) -> AnyGuide:
        """Fit one rung and keep it."""
        made = list(grown_guides(rung, starts, self.target.dim, self.dtype, self.generator))
        settings = {**self.settings, **described(made[0])}
        plan = plan_of(rung, len(starts), self.target.dim, self.seed)
        plan = replace(plan, compile=self.compile)
        self.record.stage(rung.formula)
        optimizer = NaturalGradient if rung.natural else None
        with self.crew.training(made, plan, settings, optimizer) as trainer:
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
            self.record.show(trainer)
            return None if spent is None else Stop(spent)

        return watch

    def _stop_if_good(self, rung: Rung | None = None, limits: tuple[float, float] = GOOD) -> None:
        rung = self.record.last if rung is None else rung
        gap = self.record.gap(rung)
        if rung.khat < limits[0] and gap <= limits[1]:
            raise ClimbOver(
                f"{rung} is as good as can be told: k-hat {rung.khat:.2f}, and"
                f" {max(gap, 0.0):.4f} nats below the log evidence"
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
        fair = previous.khat < KHAT_LIMIT and self.record.gap(previous) <= FAIR_GAP
        if fair and previous.components > 1 and gain < -NEAR:
            raise ClimbOver(f"{last} lost modes that {previous} holds")


def climb(arguments: ClimbArguments) -> tuple[Tried, ClimbPath, str]:
    """The best guide that a climb finds, its path, and how it ended; see :class:`Climb`.

    Returns:
        The guide; the path; ``"auto"`` if the climb came to an end of its own, or else what cut it
        off: ``"interrupted"``, the budget in words, or the reason that a callback gave.

    Raises:
        FitError: not one guide with a finite ELBO was found.
    """
    whole = Climb(arguments)
    with graphs(bool(arguments.compile), arguments.budget.seconds) as scope:
        end = whole.run()
    path = whole.record.path(end.reason)
    for i, rung in enumerate(path):
        why = "kept" if i == path.best else _why_dropped(rung, path[path.best])
        logger.info("rung %d, %s: %s", i + 1, rung, why)
    logger.info("the climb ended: %s", end.reason)
    found = whole.record.tried[path.best]
    told = {"compile": arguments.compile, "scores": scope.text(whole.target)}
    found = replace(found, settings=found.settings | told)
    found = replace(found, missed=whole.record.missed_by(found.guide))
    if not math.isfinite(found.diagnostics.elbo):
        raise FitError(nothing_finite(whole.target), parts(found.guide)[0])
    return found, path, end.reason if end.cut else AUTO


def _why_dropped(rung: Rung, kept: Rung) -> str:
    """In what a rung is behind the one that was kept."""
    behind = kept.elbo - rung.elbo
    if behind > CLOSE:
        return f"dropped, as its ELBO is {behind:.4f} nats lower"
    return f"dropped, as its k-hat is {rung.khat:.2f} and not {kept.khat:.2f}"
