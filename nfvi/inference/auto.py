"""What ``NFVI("auto").fit`` does: checks, a climb, and a Fit of its best rung."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from nfvi.auto import AUTO, Budget, ClimbArguments, Tried, climb, learned_rungs
from nfvi.errors import FormulaError
from nfvi.fit import ClimbPath, Fit
from nfvi.inference.arguments import FitArguments
from nfvi.inference.guide_spec import GuideSpec
from nfvi.targets import Target, takes_rows
from nfvi.training import CallbackLike, Checkpoint, Crew, Ranks, has_bar
from nfvi.utils import progress_wanted

__all__ = ["AUTO", "auto_fit", "is_auto", "refuse_data", "refuse_guide_options"]

# Two minutes for a logistic regression on one core.
MOST_ROWS = 50_000


def is_auto(formula: object) -> bool:
    """Whether a formula is the word "auto", in any case and with any blanks."""
    return isinstance(formula, str) and formula.strip().lower() == AUTO


def refuse_data(spec: GuideSpec) -> None:
    """Refuse to climb towards data.

    Raises:
        FormulaError: the formula is "auto".
    """
    if spec.formula == AUTO:
        raise FormulaError(
            'NFVI("auto") climbs towards a target, not towards data; name a formula for data, such'
            ' as NFVI("nsf*3").fit_data(x)'
        )


def refuse_guide_options(spec: GuideSpec) -> None:
    """Refuse what "auto" chooses by itself.

    Raises:
        ValueError: a base or a jitter was given.
    """
    if str(spec.base) != "normal":
        raise ValueError(
            f'base={str(spec.base)!r}: NFVI("auto") chooses it, and starts from Gaussians; leave'
            f' base= out, or name a formula, as in NFVI("planar*8", base={str(spec.base)!r})'
        )
    if spec.jitter is not None:
        raise ValueError(
            f'jitter={spec.jitter!r}: NFVI("auto") chooses it; leave jitter= out, or name a formula'
        )


def auto_fit(
    spec: GuideSpec,
    target: Target,
    arguments: FitArguments,
    budget: Budget | float | None,
    callbacks: Sequence[CallbackLike],
    progress: bool | None,
    started: float,
    ranks: Ranks | None = None,
) -> Fit:
    """The fit of the best rung of a climb.

    Args:
        spec: for seed, dtype and device.
        target: log p.
        arguments: the other arguments of ``fit``, none of which but ``compile`` may be set.
        budget: as for :meth:`nfvi.NFVI.fit`.
        callbacks: for every rung.
        progress: whether to show a bar of the whole climb; not where a bar is among the callbacks.
        started: when the fit began, by ``time.perf_counter``.
        ranks: the processes that share it, of which the first one decides; default this one alone.

    Raises:
        ValueError: an argument was given that "auto" chooses by itself, or a Checkpoint; or there
            are more processes than the draws of a step.
        FitError: no guide with a finite ELBO was found.
    """
    ranks = Ranks() if ranks is None else ranks
    limits = Budget.of(budget)
    _refuse(arguments, callbacks)
    if budget is None:
        _refuse_rows(target)
    crew = Crew(ranks, target, spec.device, bool(arguments.compile), limits.seconds)
    climbed = ClimbArguments(
        target,
        seed=spec.fresh_seed(),
        dtype=spec.target_dtype(target),
        device=spec.device,
        budget=limits,
        callbacks=callbacks,
        settings=spec.target_settings(target, AUTO),
        compile=arguments.compile,
        bar=progress_wanted(progress) and not has_bar(callbacks),
        crew=crew,
    )
    _agree(climbed, ranks)

    def work() -> tuple[Tried, ClimbPath, str, int | None, float]:
        found, path, stopped = climb(climbed)
        run = next((i for i, one in enumerate(crew.trainers) if one is found.trainer), None)
        elapsed = time.perf_counter() - started
        return replace(found, trainer=None), path, stopped, run, elapsed

    found, path, stopped, run, elapsed = crew.share(work, callbacks)
    trainer = None if run is None else crew.trainers[run]
    if trainer is not None:
        trainer.ranks = ranks
        trainer.gradient_evaluations = path.gradient_evaluations
        trainer.batched_evaluations = path.batched_evaluations
    return Fit(
        found.guide,
        target,
        history=found.history,
        restarts=found.restarts,
        settings=found.settings,
        stopped=stopped,
        wall_time=elapsed,
        gradient_evaluations=path.gradient_evaluations,
        batched_evaluations=path.batched_evaluations,
        diagnostics=found.diagnostics,
        trainer=trainer,
        path=path,
        missed=found.missed,
    )


def _agree(climbed: ClimbArguments, ranks: Ranks) -> None:
    """Check that all processes are about to climb alike, and that each has draws in every step.

    Raises:
        FitError: they differ in an argument.
        ValueError: there are too many; or restarts were to be shared.
    """
    if ranks.distribute == "restarts":
        raise ValueError(
            'distribute="restarts": NFVI("auto") has one restart in most runs; leave distribute='
            " out, and the processes share draws"
        )
    least = min(rung.n_mc for rung in learned_rungs(climbed.target.dim))
    if ranks.size > least:
        raise ValueError(
            f'{ranks.size} processes share NFVI("auto"), whose smallest steps have {least} draws'
            f" for a target of dimension {climbed.target.dim}: start as many processes at most"
        )
    same = {**climbed.settings, "seed": climbed.seed, "budget": climbed.budget}
    device = torch.device(climbed.device or "cpu")
    ranks.begin({**same, "compile": climbed.compile}, 0, [torch.zeros(1, device=device)])


def _refuse_rows(target: Target) -> None:
    """Refuse to climb for hours.

    Raises:
        ValueError: the target has many rows.
    """
    if takes_rows(target) and target.rows > MOST_ROWS:
        raise ValueError(
            f'NFVI("auto") takes gradients on all rows at some 60,000 points, and {target.name!r}'
            f' has {target.rows:,} rows: name a formula, such as NFVI("scale-loc") or'
            ' NFVI("realnvp*4"), whose steps see a few rows; or say how long it may take, budget='
        )


def _refuse(arguments: FitArguments, callbacks: Sequence[CallbackLike]) -> None:
    chosen = arguments.given()
    if chosen:
        raise ValueError(
            f'{chosen[0]}= is chosen by NFVI("auto"): leave it out, or name a formula; budget='
            " limits what a climb spends"
        )
    if any(isinstance(callback, Checkpoint) for callback in callbacks):
        raise ValueError(
            'a Checkpoint holds one fit, and NFVI("auto") makes several: leave it out; after'
            " Ctrl-C and at the end of a budget the best guide so far is returned, and fit.save"
            "(path) keeps it"
        )
