"""What a climb has tried: every guide with how good it is, and what all have cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nfvi.auto.failure import carries_best
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
from nfvi.guides import AnyGuide, MixtureGuide, header_of_guide, parts
from nfvi.targets import Target
from nfvi.training import History, Plan, Trainer

if TYPE_CHECKING:
    from nfvi.auto.budget import Budget

__all__ = ["CLOSE", "Record", "Tried", "described", "rank"]

DRAWS = 10_000
PART_DRAWS = 2_000
CLOSE, FAIR = 0.002, 0.005


@dataclass(frozen=True)
class Tried:
    """A guide that was tried, and everything that a :class:`~nfvi.Fit` keeps of it."""

    guide: AnyGuide
    diagnostics: Diagnostics
    history: History
    restarts: tuple[Restart, ...]
    settings: dict[str, Any]
    trainer: Trainer | None


class Record:
    """Every guide of one climb, in order, with running totals of what they cost.

    Args:
        target: log p.
        seed: of the draws by which guides are judged.
        budget: what may be spent.
        settings: what a fit keeps of its target and dtype.

    Attributes:
        tried: the guides.
        rungs: their rows in the path.
        steps: optimiser steps, of all runs that ended.
        batches: evaluations of the target, one after the other.
        gradients: points at which its gradient was taken.
    """

    def __init__(self, target: Target, seed: int, budget: Budget, settings: dict[str, Any]) -> None:
        self.target, self.seed, self.budget, self.settings = target, seed, budget, settings
        self.started = time.perf_counter()
        self.steps = self.batches = self.gradients = 0
        self.tried: list[Tried] = []
        self.rungs: list[Rung] = []

    @property
    def last(self) -> Rung:
        """The latest rung."""
        return self.rungs[-1]

    def count(self, batches: int, gradients: int, steps: int = 0) -> None:
        """Add to the costs."""
        self.batches += batches
        self.gradients += gradients
        self.steps += steps

    def spent(self, running: Trainer | None = None) -> str | None:
        """Which limit of the budget is reached, with what a run has cost so far; or ``None``."""
        steps, gradients = self.steps, self.gradients
        if running is not None:
            steps, gradients = steps + running.step, gradients + running.gradient_evaluations
        return self.budget.spent(time.perf_counter() - self.started, steps, gradients)

    def enough(self, gradients: int) -> bool:
        """Whether the budget is spent, with so many gradients that are not counted yet."""
        elapsed = time.perf_counter() - self.started
        return self.budget.spent(elapsed, self.steps, self.gradients + gradients) is not None

    @carries_best
    def add_run(self, trainer: Trainer) -> AnyGuide:
        """The guide of a run that has ended, kept."""
        guide, restarts = outcome(trainer)
        found = self._judge(guide)
        self._add(
            Tried(guide, found, trainer.history, restarts, trainer.settings, trainer), trainer.step
        )
        return guide

    @carries_best
    def add_gaussian(self, guide: AnyGuide, plan: Plan) -> None:
        """Keep a Gaussian, or a mixture of them, that no run has made.

        Args:
            guide: the guide.
            plan: of a run that would go on from it.
        """
        settings = {**self.settings, **described(guide), **plan.as_dict(), "optimizer": "Adam"}
        found = self._judge(guide)
        restarts = self._restarts(guide, found)
        self._add(Tried(guide, found, History(), restarts, settings, None), 0)

    def best(self) -> int:
        """The rung of lowest k-hat among those within 0.002 nats of the highest ELBO.

        Where that k-hat is 0.7 or more: the rung of highest ELBO among those below 0.7 that are
        within 0.005 nats, if there is one: between Gaussians, at most a tenth of an sd in a mean.
        """
        highest = max(rank(rung) for rung in self.rungs)
        found = min(self._within(highest - CLOSE), key=lambda i: self.rungs[i].khat)
        if self.rungs[found].khat < KHAT_LIMIT:
            return found
        fair = [i for i in self._within(highest - FAIR) if self.rungs[i].khat < KHAT_LIMIT]
        return max(fair, key=lambda i: rank(self.rungs[i]), default=found)

    @property
    def best_rung(self) -> Rung:
        """The rung that would be kept by now."""
        return self.rungs[self.best()]

    def _within(self, least: float) -> list[int]:
        """The rungs whose ELBO is not below the least one."""
        return [i for i, rung in enumerate(self.rungs) if rank(rung) >= least]

    def path(self, reason: str) -> ClimbPath:
        """All rungs, and why there are no more."""
        return ClimbPath(tuple(self.rungs), self.best(), reason, self.batches, self.gradients)

    def _judge(self, guide: AnyGuide) -> Diagnostics:
        """With the draws that a fit's own diagnostics would take."""
        return diagnose(draw_weighted(guide, self.target, DRAWS, self._stream(guide, 1)))

    def _restarts(self, guide: AnyGuide, found: Diagnostics) -> tuple[Restart, ...]:
        """The guide as the only restart, or each of its components with its own ELBO."""
        if not isinstance(guide, MixtureGuide):
            return (Restart(0, found.elbo, found.elbo_se, False, 0, False, best=True),)
        elbos = [self._elbo(part) for part in guide.guides]
        best = max(range(len(elbos)), key=lambda i: elbos[i][0])
        return tuple(
            Restart(k, *elbo, False, 0, False, best=k == best, weight=weight)
            for k, (elbo, weight) in enumerate(zip(elbos, guide.weights.tolist(), strict=True))
        )

    def _elbo(self, guide: AnyGuide) -> tuple[float, float]:
        _, log_p, log_q = evaluate(guide, self.target, PART_DRAWS, self._stream(guide, 0))
        return elbo_of(log_p, log_q)

    def _stream(self, guide: AnyGuide, offset: int) -> torch.Generator:
        return torch.Generator(guide.device).manual_seed(self.seed + offset)

    def _add(self, tried: Tried, steps: int) -> None:
        found, guide = tried.diagnostics, tried.guide.requires_grad_(False).eval()
        self.tried.append(tried)
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


def described(guide: AnyGuide) -> dict[str, Any]:
    """What the settings of a fit, and its checkpoints, say of a guide."""
    return {
        "formula": str(guide.formula),
        "base": str(guide.base),
        "placement": header_of_guide(parts(guide)[0])["placement"],
    }


def rank(rung: Rung) -> float:
    """The ELBO by which rungs are compared: −∞ where it is not finite."""
    return rung.elbo if math.isfinite(rung.elbo) else -math.inf
