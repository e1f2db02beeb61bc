"""What a climb has tried: every guide with how good it is, and what all have cost."""

from __future__ import annotations

import logging
import math
import time
from functools import cache
from typing import Any

import torch

from nfvi.auto.bar import ClimbBar
from nfvi.auto.budget import Budget
from nfvi.auto.failure import carries_best
from nfvi.auto.tried import Tried, described, score_of
from nfvi.fit import (
    KHAT_LIMIT,
    ClimbPath,
    Diagnostics,
    Restart,
    Rung,
    diagnose,
    draw_weighted,
    elbo_of,
    evaluate,
    outcome,
)
from nfvi.guides import AnyGuide, MixtureGuide, parts
from nfvi.search import MissedMass, prior_scale, search_mass
from nfvi.targets import Target, log_prob_anywhere
from nfvi.training import History, NaturalGradient, Plan, Trainer
from nfvi.utils import held

__all__ = ["CLOSE", "Record"]

logger = logging.getLogger(__name__)

# As many as `print(fit)` takes, so that the rung that was judged good is shown as such.
DRAWS = 10_000
# Of a component of a mixture, whose ELBO is only shown, and of all of them.
PART_DRAWS, PARTS_DRAWS = 2_000, 40_000
RANKING, RANKED_IN_ALL = 20_000, 400_000
MOST_WIDE, FEWEST_WIDE = 2**30, 512
FEWEST_DRAWS, FEWEST_PART_DRAWS = 500, 100
PROBES = 16
GRADIENT = 3.0
"""Times as long as a value."""
JUDGING = 0.02
"""Of a budget in seconds, for the values that judge one rung."""
# Nats: the error of an ELBO of 10 000 draws whose log weights have an sd of 0.2, and the shift of
# a mean by a tenth of an sd, 0.1²/2. Wider, k-hat chooses worse guides; narrower, chance chooses.
CLOSE, FAIR = 0.002, 0.005
SURELY = 4.0
"""Standard errors by which the log evidence of one rung must be over that of another."""
RUNGS = 0.9
"""Of a budget in seconds; the rest is for judging the last rung and for the search."""


class Record:
    """Every guide of one climb, in order, with running totals of what they cost.

    Args:
        target: log p.
        seed: of the draws by which guides are judged.
        budget: what may be spent.
        settings: what a fit keeps of its target and dtype.
        bar: shows how far the climb is; default none.

    Attributes:
        tried: the guides.
        rungs: their rows in the path.
        scores: by which they are compared, see :func:`score_of`.
        steps: optimiser steps, of all runs that ended.
        missed: the last search for mass that a rung misses.
        seconds_per_point: of one value of log p, in a small batch; 0 where it was not measured.
        batches: evaluations of the target, one after the other.
        gradients: points at which its gradient was taken.
        values: points at which its value alone was taken to fit mixtures of Gaussians.
    """

    def __init__(
        self,
        target: Target,
        seed: int,
        budget: Budget,
        settings: dict[str, Any],
        bar: ClimbBar | None = None,
    ) -> None:
        self.target, self.seed, self.budget, self.settings = target, seed, budget, settings
        self.bar = ClimbBar(shown=False) if bar is None else bar
        self.started = time.perf_counter()
        self.steps = self.batches = self.gradients = self.values = 0
        self.seconds_per_point = 0.0
        self.missed: MissedMass | None = None
        self._searched: AnyGuide | None = None
        self._prior_of = cache(prior_scale)
        self.tried: list[Tried] = []
        self.rungs: list[Rung] = []
        self.scores: list[float] = []

    @property
    def last(self) -> Rung:
        """The latest rung."""
        return self.rungs[-1]

    def stage(self, name: str) -> None:
        """Show what is done from now on."""
        self.bar.stage(name)
        self.show()

    def show(self, running: Trainer | None = None) -> None:
        """Bring the bar up to date, if there is one and it is time for it."""
        if self.bar.due():
            elapsed = time.perf_counter() - self.started
            khat = self.best_rung.khat if self.rungs else math.nan
            elbo = max(self.scores, default=math.nan)
            self.bar.draw(self.budget, elapsed, self.steps, self.gradients, elbo, khat, running)

    @torch.no_grad()
    @carries_best
    def measure(self, dtype: torch.dtype, device: torch.device) -> None:
        """Time the log-density at a few points, to size what a budget in seconds must hold."""
        if self.budget.seconds is None:
            return
        generator = torch.Generator(device).manual_seed(self.seed)
        shape = PROBES, self.target.dim
        z = 0.1 * torch.randn(shape, generator=generator, dtype=dtype, device=device)
        log_prob_anywhere(self.target, z)  # the first call may check or prepare
        started = time.perf_counter()
        log_prob_anywhere(self.target, z)
        self.seconds_per_point = (time.perf_counter() - started) / len(z)
        logger.info(
            "budget of %g s, %.2g s a point: %d draws judge a rung, a search has %d at most",
            *(self.budget.seconds, self.seconds_per_point, self.affordable(DRAWS, FEWEST_DRAWS)),
            self.affordable(MOST_WIDE, FEWEST_WIDE, 2 * JUDGING),
        )

    def affordable(self, most: int, least: int, share: float = JUDGING) -> int:
        """How many points may be looked at for a share of the budget, between two limits."""
        if self.budget.seconds is None or self.seconds_per_point == 0:
            return most
        return min(most, max(least, int(share * self.budget.seconds / self.seconds_per_point)))

    def affords(self, gradients: int) -> bool:
        """Whether a batch of so many gradients takes less than a tenth of the budget."""
        if self.budget.seconds is None:
            return True
        return GRADIENT * gradients * self.seconds_per_point < 0.1 * self.budget.seconds

    def count(self, batches: int, gradients: int, steps: int = 0, values: int = 0) -> None:
        """Add to the costs."""
        self.batches += batches
        self.gradients += gradients
        self.steps += steps
        self.values += values

    def spent(self, running: Trainer | None = None) -> str | None:
        """Which limit of the budget is reached, with what a run has cost so far; or ``None``."""
        steps, gradients = self.steps, self.gradients
        if running is not None:
            steps, gradients = steps + running.step, gradients + running.gradient_evaluations
        return self.budget.spent(time.perf_counter() - self.started, steps, gradients, RUNGS)

    def enough(self, gradients: int) -> bool:
        """Whether the budget is spent, with so many gradients that are not counted yet."""
        self.show()
        elapsed = time.perf_counter() - self.started + self._kept_back()
        found = self.budget.spent(elapsed, self.steps, self.gradients + gradients, RUNGS)
        return found is not None

    def _kept_back(self) -> float:
        """Seconds for judging two Gaussians, where the last tenth of a budget will not do."""
        if self.budget.seconds is None:
            return 0.0
        judging = 2 * self.affordable(DRAWS, FEWEST_DRAWS) * self.seconds_per_point
        return max(judging - 0.5 * (1 - RUNGS) * self.budget.seconds, 0.0)

    def out_of_time(self) -> bool:
        """Whether the whole of the budget is spent, the part for the last search too."""
        self.show()
        elapsed = time.perf_counter() - self.started
        return self.budget.spent(elapsed, self.steps, self.gradients) is not None

    def search(self, generator: torch.Generator) -> MissedMass:
        """Look for mass that the best rung misses, unless that was the last that was searched."""
        best = self.tried[self.best()]
        if self.missed is None or self._searched is not best.guide:
            self.stage("search for missed mass")
            self.missed = search_mass(
                best.guide,
                self.target,
                best.diagnostics.log_evidence,
                generator,
                most=self.affordable(MOST_WIDE, FEWEST_WIDE, 2 * JUDGING),
                prior_of=self._prior_of,
                enough=lambda _: self.out_of_time(),
            )
            self._searched = best.guide
            self.count(self.missed.batched_evaluations, self.missed.gradient_evaluations)
        return self.missed

    def missed_by(self, guide: AnyGuide) -> MissedMass | None:
        """The last search, if it was of this guide."""
        return self.missed if self._searched is guide else None

    @carries_best
    def add_run(self, trainer: Trainer) -> AnyGuide:
        """The guide of a run that has ended, kept."""
        each = max(RANKED_IN_ALL // trainer.ensemble.size, FEWEST_DRAWS)
        draws = self.affordable(min(RANKING, each), FEWEST_DRAWS)
        guide, restarts = outcome(trainer, draws, self.out_of_time)
        found, score = self._judge(guide)
        # What refines a fit by many steps is Adam, of which one costs a thirtieth.
        goes_on = None if isinstance(trainer.optimizer, NaturalGradient) else trainer
        tried = Tried(guide, found, trainer.history, restarts, trainer.settings, goes_on)
        self._add(tried, score, trainer.step)
        return guide

    @carries_best
    def add_guide(self, guide: AnyGuide, plan: Plan, steps: int = 0) -> None:
        """Keep a guide that no fit by the ELBO has made: Gaussians, or a flow from particles.

        Args:
            guide: the guide.
            plan: of a run that would go on from it.
            steps: of an optimiser that it took.
        """
        settings = {**self.settings, **described(guide), **plan.as_dict(), "optimizer": "Adam"}
        found, score = self._judge(guide)
        restarts = self._restarts(guide, found)
        self._add(Tried(guide, found, History(), restarts, settings, None), score, steps)

    def best(self) -> int:
        """The rung of lowest k-hat among those within 0.002 nats of the highest ELBO.

        Where that k-hat is 0.7 or more: the rung of highest ELBO among those below 0.7 that are
        within 0.005 nats, if there is one: between Gaussians, at most a tenth of an sd in a mean.
        """
        highest = max(self.scores)
        found = min(self._within(highest - CLOSE), key=lambda i: self.rungs[i].khat)
        if self.rungs[found].khat < KHAT_LIMIT:
            return found
        fair = [i for i in self._within(highest - FAIR) if self.rungs[i].khat < KHAT_LIMIT]
        return max(fair, key=lambda i: self.scores[i], default=found)

    def gap(self, rung: Rung | None = None) -> float:
        """How far the ELBO of a rung, by default the last, is below the log evidence (nats).

        That is its own, or that of another rung where it is surely higher: a flow in one mode of
        forty sees no more than that mode, and is exact there.
        """
        rung = self.last if rung is None else rung
        known = [t.diagnostics for t in self.tried if t.diagnostics.khat < KHAT_LIMIT]
        least = [found.log_evidence - SURELY * found.log_evidence_se for found in known]
        return max([rung.log_evidence, *least]) - rung.elbo

    @property
    def highest(self) -> Rung:
        """The rung of the highest score."""
        return self.rungs[max(range(len(self.scores)), key=lambda i: self.scores[i])]

    @property
    def best_rung(self) -> Rung:
        """The rung that would be kept by now."""
        return self.rungs[self.best()]

    def _within(self, least: float) -> list[int]:
        """The rungs whose ELBO is not below the least one."""
        return [i for i, score in enumerate(self.scores) if score >= least]

    def path(self, reason: str) -> ClimbPath:
        """All rungs, and why there are no more."""
        costs = self.batches, self.gradients, self.values
        return ClimbPath(tuple(self.rungs), self.best(), reason, *costs)

    def _judge(self, guide: AnyGuide) -> tuple[Diagnostics, float]:
        """With the draws that a fit's own diagnostics would take; and the score."""
        n = self.affordable(DRAWS, FEWEST_DRAWS)
        keep = held(n, guide.dim)
        draws = draw_weighted(guide, self.target, n, self._stream(guide, 1), keep=keep)
        found = diagnose(draws)
        return found, score_of(draws, found)

    def _restarts(self, guide: AnyGuide, found: Diagnostics) -> tuple[Restart, ...]:
        """The guide as the only restart, or each of its components with its own ELBO."""
        if not isinstance(guide, MixtureGuide):
            return (Restart(0, found.elbo, found.elbo_se, False, 0, False, best=True),)
        each = max(min(PART_DRAWS, PARTS_DRAWS // len(guide.guides)), FEWEST_PART_DRAWS)
        elbos = [self._elbo(part, each) for part in guide.guides]
        best = max(range(len(elbos)), key=lambda i: elbos[i][0])
        return tuple(
            Restart(k, *elbo, False, 0, False, best=k == best, weight=weight)
            for k, (elbo, weight) in enumerate(zip(elbos, guide.weights.tolist(), strict=True))
        )

    def _elbo(self, guide: AnyGuide, most: int) -> tuple[float, float]:
        n = self.affordable(most, FEWEST_PART_DRAWS)
        found = evaluate(guide, self.target, n, self._stream(guide, 0), keep=0)
        return elbo_of(found.log_p, found.log_q)

    def _stream(self, guide: AnyGuide, offset: int) -> torch.Generator:
        return torch.Generator(guide.device).manual_seed(self.seed + offset)

    def _add(self, tried: Tried, score: float, steps: int) -> None:
        found, guide = tried.diagnostics, tried.guide.requires_grad_(False).eval()
        self.tried.append(tried)
        self.scores.append(score)
        self.rungs.append(
            Rung(
                formula=str(guide.formula),
                elbo=found.elbo,
                elbo_se=found.elbo_se,
                khat=found.khat,
                efficiency=found.efficiency,
                log_evidence=found.log_evidence,
                steps=steps,
                batched_evaluations=self.batches,
                gradient_evaluations=self.gradients,
                wall_time=time.perf_counter() - self.started,
                components=len(parts(guide)),
                base=str(guide.base),
                guide=guide,
            )
        )
        logger.info(
            "rung %d, %s: ELBO %.4f, k-hat %.2f, %d steps; the best is now %s",
            *(len(self.rungs), self.last, found.elbo, found.khat, steps, self.best_rung),
        )
        self.show()
