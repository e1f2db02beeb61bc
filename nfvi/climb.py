"""NFVI("auto"): from Gaussians to learned flows of growing size, until the answer is good."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from nfvi.climb_path import ClimbPath, Rung
from nfvi.climb_rungs import TAILS, Learned, candidates, grown_guides, learned_rungs
from nfvi.diagnostics import KHAT_LIMIT, Diagnostics, diagnose, draw_weighted
from nfvi.errors import FitError
from nfvi.guide import Guide
from nfvi.mixture_guide import AnyGuide, MixtureGuide, parts
from nfvi.mixture_weights import mixture_weights
from nfvi.placement import Placement
from nfvi.targets import Target
from nfvi.training.combine import outcome
from nfvi.training.explore import explore
from nfvi.training.gaussian_guide import gaussian_guide
from nfvi.training.history import History
from nfvi.training.loop import Trainer
from nfvi.training.restarts import Restart
from nfvi.training.setup import Plan, build_trainer, default_gradient
from nfvi.training.starts import Start, find_start
from nfvi.training.state import CallbackLike, Stop, TrainState

if TYPE_CHECKING:
    from nfvi.budget import Budget

__all__ = ["Climb", "Top", "climb"]

DRAWS = 10_000
WEIGHING = 2_000
# (k-hat, nats): a guide is good if it is below both limits of a pair.
GOOD = ((0.5, 0.002), (KHAT_LIMIT, 0.001))
LEAST_GAIN = 0.002
NEAR = 0.05
NO_MORE = 0.8
ROUGH = 0.5
SOBOL_LIMIT = 1_000


@dataclass(frozen=True)
class Top:
    """What a climb ends with: a guide and everything a :class:`~nfvi.Fit` keeps of it."""

    guide: AnyGuide
    diagnostics: Diagnostics
    history: History
    restarts: tuple[Restart, ...]
    settings: dict[str, Any]
    trainer: Trainer | None


class EnoughError(Exception):
    """The climb is over; the text says why."""


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
        self.target, self.seed, self.dtype, self.budget = target, seed, dtype, budget
        self.callbacks, self.settings = callbacks, settings
        self.generator = torch.Generator(device or "cpu").manual_seed(seed)
        self.started = time.perf_counter()
        self.steps = self.batches = self.gradients = 0
        self.rungs: list[Rung] = []
        self.tops: list[Top] = []

    def run(self) -> tuple[Top, ClimbPath]:
        """Climb to the end.

        Raises:
            FitError: not one guide with a finite ELBO was found.
            KeyboardInterrupt: Ctrl-C was pressed before there was any guide to keep.
        """
        try:
            self._climb()
            reason = "the last rung was reached"
        except EnoughError as end:
            reason = str(end)
        except KeyboardInterrupt:
            if not self.rungs:
                raise
            reason = "interrupted"
        best = _best(self.rungs)
        return self.tops[best], ClimbPath(tuple(self.rungs), best, reason)

    def _climb(self) -> None:
        start = self._gaussians()
        starts: list[Guide | Placement] = [start.placement(1.0)]
        if start.tril.dim() == 2:
            starts = self._modes(start)
        self._stop_if_good()
        if self.rungs[-1].efficiency < ROUGH and candidates(self.target.dim):
            self._tournament()
        previous = self.rungs[-1]
        for rung in learned_rungs(self.target.dim):
            guide = self._learn(rung, starts)
            starts = list(parts(guide))
            if self.rungs[-1].gap <= GOOD[0][1] and len(starts) == 1:
                # Only the tails are wrong: heavier ones cost less than more layers.
                self._learn(replace(rung, steps=300, lr=rung.lr / 2, base=TAILS), starts)
            self._stop_if_no_gain(previous)
            previous = max(self.rungs, key=_rank)

    def _gaussians(self) -> Start:
        """The diagonal and the full-rank Gaussian."""
        start = find_start(self.target, "auto", self.generator, self.dtype)
        self.batches += start.iterations
        self.gradients += start.gradient_evaluations
        if start.diagonal is not None:
            self._keep_gaussian(gaussian_guide(*start.diagonal, self.dtype))
        if start.tril.dim() == 2:
            self._keep_gaussian(gaussian_guide(start.loc, start.tril, self.dtype))
        return start

    def _modes(self, start: Start) -> list[Guide | Placement]:
        """A mixture of Gaussians, if the target has several modes; where to go on from."""
        modes = explore(self.target, start, self.generator, self.dtype)
        self.batches += modes.iterations
        self.gradients += modes.gradient_evaluations
        here: list[Guide | Placement] = [start.placement(1.0)]
        if len(modes.loc) > 1:
            guides = [
                gaussian_guide(m, s, self.dtype) for m, s in zip(modes.loc, modes.tril, strict=True)
            ]
            weights = mixture_weights(guides, self.target, WEIGHING, self.generator)
            needed = (weights > 0).nonzero()[:, 0]
            modes = modes.choose(needed)
            if len(needed) > 1:
                chosen = [guides[i] for i in needed.tolist()]
                self._keep_gaussian(MixtureGuide(chosen, weights[needed]))
                if modes.apart():
                    here = [Placement(m, s) for m, s in zip(modes.loc, modes.tril, strict=True)]
        return here

    def _tournament(self) -> None:
        """Several families in a few dimensions; the best goes on for longer."""
        place = Placement.identity(
            self.target.dim, dtype=torch.float64, device=self.generator.device
        )
        tried = candidates(self.target.dim)
        first, guides = len(self.rungs), []
        for rung in tried:
            guides.append(self._learn(rung, [place] * len(rung.tempered)))
            if self.rungs[-1].gap <= NEAR and self.rungs[-1].efficiency > ROUGH:
                break
        best = max(range(len(guides)), key=lambda i: _rank(self.rungs[first + i]))
        longer = replace(tried[best], steps=2_000, n_mc=256, lr=0.01, tempered=(0.0,))
        self._learn(longer, list(parts(guides[best])))
        raise EnoughError("the best of several families was fitted for longer")

    def _learn(self, rung: Learned, starts: Sequence[Guide | Placement]) -> AnyGuide:
        """Fit one rung and keep it."""
        made = grown_guides(rung, starts, self.target.dim, self.dtype, self.generator)
        trainer = build_trainer(
            _one_by_one(list(made)), self.target, self._plan(rung, len(starts)), None, self.settings
        )
        spent = self.gradients
        stopped = trainer.run([*self.callbacks, self._watch(trainer)])
        self.steps += trainer.step
        self.batches += trainer.step
        self.gradients = spent + trainer.gradient_evaluations
        guide, restarts = outcome(trainer)
        top = Top(guide, self._judge(guide), trainer.history, restarts, trainer.settings, trainer)
        trainer.settings |= {"formula": str(guide.formula), "base": str(guide.base)}
        self._keep(top, trainer.step)
        if stopped != "steps":
            raise EnoughError(stopped)
        self._stop_if_good()
        return guide

    def _plan(self, rung: Learned, restarts: int) -> Plan:
        tempered = rung.tempered if len(rung.tempered) == restarts else (0.0,) * restarts
        sobol = self.target.dim <= SOBOL_LIMIT
        zero = torch.Generator().manual_seed(0)
        trial = Guide(rung.formula, self.target.dim, dtype=self.dtype, generator=zero)
        return Plan(
            steps=rung.steps,
            n_mc=rung.n_mc,
            lengths=tuple(round(f * rung.steps) for f in tempered),
            gradient=default_gradient(trial),
            lr=rung.lr,
            seed=self.seed,
            draws="qmc" if sobol and rung.base == "normal" else "iid",
            combine="mixture" if restarts > len(rung.tempered) else "best",
        )

    def _watch(self, trainer: Trainer) -> Callable[[TrainState], Stop | None]:
        """A callback that ends a rung when the budget is spent."""
        steps, gradients = self.steps, self.gradients

        def watch(state: TrainState) -> Stop | None:
            spent = self.budget.spent(
                time.perf_counter() - self.started,
                steps + trainer.step,
                gradients + trainer.gradient_evaluations,
            )
            return None if spent is None else Stop(spent)

        return watch

    def _keep_gaussian(self, guide: AnyGuide) -> None:
        only = Restart(0, 0.0, 0.0, False, 0, False, True)
        found = self._judge(guide)
        restarts: tuple[Restart, ...] = (replace(only, elbo=found.elbo, elbo_se=found.elbo_se),)
        if isinstance(guide, MixtureGuide):
            restarts = tuple(
                replace(restarts[0], index=k, weight=w, best=k == 0)
                for k, w in enumerate(guide.weights.tolist())
            )
        plan = self._plan(Learned(str(guide.formula), 1, 2, 0.02), len(restarts)).as_dict()
        settings = {**self.settings, **plan, "optimizer": "Adam", "formula": str(guide.formula)}
        self._keep(Top(guide, found, History(), restarts, settings, None), 0)

    def _judge(self, guide: AnyGuide) -> Diagnostics:
        generator = torch.Generator(guide.device).manual_seed(self.seed + 1)
        return diagnose(draw_weighted(guide, self.target, DRAWS, generator))

    def _keep(self, top: Top, steps: int) -> None:
        found = top.diagnostics
        self.tops.append(top)
        self.rungs.append(
            Rung(
                formula=str(top.guide.formula),
                elbo=found.elbo,
                elbo_se=found.elbo_se,
                khat=found.khat,
                efficiency=found.efficiency,
                log_evidence=found.log_evidence,
                steps=steps,
                batched_evaluations=self.batches,
                gradient_evaluations=self.gradients,
                wall_time=time.perf_counter() - self.started,
                components=len(parts(top.guide)),
                base=str(top.guide.base),
                guide=top.guide,
            )
        )

    def _stop_if_good(self) -> None:
        last = self.rungs[-1]
        if any(last.khat < khat and last.gap <= gap for khat, gap in GOOD):
            raise EnoughError(
                f"{last} is as good as can be told: k-hat {last.khat:.2f}, and"
                f" {max(last.gap, 0.0):.4f} nats below the log evidence"
            )
        elapsed = time.perf_counter() - self.started
        spent = self.budget.spent(elapsed, self.steps, self.gradients)
        if spent is not None:
            raise EnoughError(spent)

    def _stop_if_no_gain(self, previous: Rung) -> None:
        last = self.rungs[-1]
        gain = last.elbo - previous.elbo
        error = math.hypot(last.elbo_se, previous.elbo_se)
        if previous.steps and gain < LEAST_GAIN + error and last.efficiency > NO_MORE:
            raise EnoughError(f"{last} gained no more than {max(gain, 0.0):.4f} nats")


def climb(
    target: Target,
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    budget: Budget,
    callbacks: Sequence[CallbackLike],
    settings: dict[str, Any],
) -> tuple[Top, ClimbPath]:
    """The best guide that a climb finds, and its path; see :class:`Climb`."""
    found, path = Climb(target, seed, dtype, device, budget, callbacks, settings).run()
    if not math.isfinite(found.diagnostics.elbo):
        raise FitError(
            f"no guide with a finite ELBO was found for {target.name!r}: is its log-density finite"
            " everywhere?",
            parts(found.guide)[0],
        )
    return found, path


def _best(rungs: Sequence[Rung]) -> int:
    """The rung of lowest k-hat among those within 0.002 nats of the highest ELBO."""
    highest = max(_rank(rung) for rung in rungs)
    close = [i for i, rung in enumerate(rungs) if _rank(rung) >= highest - LEAST_GAIN]
    return min(close or range(len(rungs)), key=lambda i: rungs[i].khat)


def _rank(rung: Rung) -> float:
    return rung.elbo if math.isfinite(rung.elbo) else -math.inf


def _one_by_one(guides: list[Guide]) -> Callable[[torch.Generator], Guide]:
    rest = iter(guides)
    return lambda _: next(rest)
