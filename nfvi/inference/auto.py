"""What ``NFVI("auto").fit`` does: checks, a climb, and a Fit of its best rung."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nfvi.auto import AUTO, Budget, climb
from nfvi.errors import FormulaError
from nfvi.fit import Fit
from nfvi.inference.target import target_dtype
from nfvi.targets import Target
from nfvi.training import CallbackLike, Checkpoint

if TYPE_CHECKING:
    from nfvi.inference.nfvi import NFVI

__all__ = ["AUTO", "auto_fit", "is_auto", "refuse_data", "refuse_guide_options"]


def is_auto(formula: object) -> bool:
    """Whether a formula is the word "auto", in any case and with any blanks."""
    return isinstance(formula, str) and formula.strip().lower() == AUTO


def refuse_data(nfvi: NFVI) -> None:
    """Refuse to climb towards data.

    Raises:
        FormulaError: the formula is "auto".
    """
    if nfvi.formula == AUTO:
        raise FormulaError(
            'NFVI("auto") climbs towards a target, not towards data; name a formula for data, such'
            ' as NFVI("nsf*3").fit_data(x)'
        )


def refuse_guide_options(nfvi: NFVI) -> None:
    """Refuse what "auto" chooses by itself.

    Raises:
        ValueError: a base or a jitter was given.
    """
    if str(nfvi.base) != "normal":
        raise ValueError(
            f'base={str(nfvi.base)!r}: NFVI("auto") chooses it, and starts from Gaussians; leave'
            " base= out"
        )
    if nfvi.jitter is not None:
        raise ValueError(f'jitter={nfvi.jitter!r}: NFVI("auto") chooses it; leave jitter= out')


def auto_fit(
    nfvi: NFVI,
    target: Target,
    given: dict[str, Any],
    budget: Budget | float | None,
    callbacks: Sequence[CallbackLike],
    started: float,
) -> Fit:
    """The fit of the best rung of a climb.

    Args:
        nfvi: for seed, dtype and device.
        target: log p.
        given: the other arguments of ``fit``, none of which may be set.
        budget: as for :meth:`nfvi.NFVI.fit`.
        callbacks: for every rung.
        started: when the fit began, by ``time.perf_counter``.

    Raises:
        ValueError: an argument was given that "auto" chooses by itself, or a Checkpoint.
        FitError: no guide with a finite ELBO was found.
    """
    limits = Budget.of(budget)
    _refuse(given, callbacks)
    dtype, seed = target_dtype(nfvi, target), nfvi._fresh_seed()
    settings = {
        **nfvi._settings(target.dim, dtype),
        "target": target.name,
        "named": target.named,
        "init": AUTO,
    }
    found, path, stopped = climb(target, seed, dtype, nfvi.device, limits, callbacks, settings)
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
    )


def _refuse(given: dict[str, Any], callbacks: Sequence[CallbackLike]) -> None:
    chosen = [name for name, value in given.items() if value is not None]
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
