"""What ``NFVI("auto").fit`` does: checks, a climb, and a Fit of its best rung."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nfvi.auto import AUTO, Budget, ClimbArguments, climb
from nfvi.errors import FormulaError
from nfvi.fit import Fit
from nfvi.inference.arguments import FitArguments
from nfvi.inference.guide_spec import GuideSpec
from nfvi.targets import Target, takes_rows
from nfvi.training import CallbackLike, Checkpoint, Ranks, has_bar
from nfvi.utils import progress_wanted

__all__ = ["AUTO", "auto_fit", "is_auto", "refuse_data", "refuse_group", "refuse_guide_options"]

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


def refuse_group(ranks: Ranks) -> None:
    """Refuse to climb with several processes, which a budget in seconds would part.

    Raises:
        ValueError: there are several.
    """
    if ranks.size > 1:
        raise ValueError(
            'NFVI("auto") climbs in one process: name a formula, such as that of a climb,'
            " str(fit.formula), or pass distribute=False, and each process climbs by itself"
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

    Raises:
        ValueError: an argument was given that "auto" chooses by itself, or a Checkpoint.
        FitError: no guide with a finite ELBO was found.
    """
    limits = Budget.of(budget)
    _refuse(arguments, callbacks)
    if budget is None:
        _refuse_rows(target)
    found, path, stopped = climb(
        ClimbArguments(
            target,
            seed=spec.fresh_seed(),
            dtype=spec.target_dtype(target),
            device=spec.device,
            budget=limits,
            callbacks=callbacks,
            settings=spec.target_settings(target, AUTO),
            compile=arguments.compile,
            bar=progress_wanted(progress) and not has_bar(callbacks),
        )
    )
    if found.trainer is not None:
        found.trainer.gradient_evaluations = path.gradient_evaluations
        found.trainer.batched_evaluations = path.batched_evaluations
    return Fit(
        found.guide,
        target,
        history=found.history,
        restarts=found.restarts,
        settings=found.settings,
        stopped=stopped,
        wall_time=time.perf_counter() - started,
        gradient_evaluations=path.gradient_evaluations,
        batched_evaluations=path.batched_evaluations,
        diagnostics=found.diagnostics,
        trainer=found.trainer,
        path=path,
        missed=found.missed,
    )


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
