"""What NFVI.fit prepares: a trainer for a target, new or from a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, TypeVar

import torch

from nfvi.errors import TargetError
from nfvi.guides import Guide, header_of_guide
from nfvi.inference.arguments import FitArguments
from nfvi.inference.guide_spec import GuideSpec
from nfvi.inference.init import Beginning, read_init, resumed_init
from nfvi.inference.saved_run import SavedRun
from nfvi.targets import MinibatchTarget, Target, graphs, takes_rows
from nfvi.training import (
    CAP,
    FIRST,
    NOMINAL_STEPS,
    Crew,
    OptimizerSpec,
    Plan,
    Ranks,
    Trainer,
    build_trainer,
    default_anneal,
    default_draws,
    default_gradient,
    default_hold,
    default_learning_rate,
    default_n_mc,
    default_restarts,
    default_steps,
    find_learning_rate,
    is_adaptive,
    tempering_lengths,
)
from nfvi.utils import check_whole

__all__ = ["resumed_target_trainer", "target_trainer"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def target_trainer(
    spec: GuideSpec, target: Target, arguments: FitArguments, ranks: Ranks | None = None
) -> Trainer:
    """The trainer of a new fit to a target.

    Args:
        spec: of the guide.
        target: log p.
        arguments: of the fit.
        ranks: the processes that share the fit, and the search for its start; default this one.

    Raises:
        TargetError, ValueError: an argument is wrong; nothing has been run then.
        FitError: no start of the kind in ``init`` was found, or processes differ in an argument.
    """
    ranks = Ranks() if ranks is None else ranks
    trial = spec.guide(target.dim, spec.target_dtype(target), torch.Generator().manual_seed(0))
    usual = default_steps(trial, arguments.optimizer)
    steps = _number("steps", arguments.steps, "an integer of at least 1", usual, auto=CAP)
    check_whole("steps", steps, 1)
    beginning = read_init(spec, target, arguments.init)
    default = default_restarts(trial, target, arguments.optimizer)
    restarts = _restarts(arguments.restarts, beginning, default)
    plan = _plan(arguments, trial, beginning, steps, restarts, spec.fresh_seed(), target)
    searching = isinstance(arguments.lr, str)
    if beginning.search is not None or searching:
        # What is wrong is said before all work.
        _trainer(spec, target, plan, arguments.optimizer, beginning)
    device = torch.device(spec.device)
    ranks.begin({**plan.as_dict(), "init": beginning.label}, 0, [torch.zeros(1, device=device)])
    if beginning.search is not None:
        beginning = _started(beginning, spec, target, plan, ranks)
    make = _with_ladder if searching else _trainer
    trainer = make(spec, target, plan, arguments.optimizer, beginning)
    trainer.gradient_evaluations += beginning.gradient_evaluations
    trainer.batched_evaluations += beginning.batched_evaluations
    trainer.ranks = ranks
    return trainer


def _started(
    beginning: Beginning, spec: GuideSpec, target: Target, plan: Plan, ranks: Ranks
) -> Beginning:
    """With the start that is to be found, by all processes."""

    def work() -> Beginning:
        with graphs(bool(plan.compile)):
            return beginning.found(spec, target, plan.seed)

    return Crew(ranks, target, torch.device(spec.device), bool(plan.compile)).share(work)


def resumed_target_trainer(
    spec: GuideSpec, target: Target, arguments: FitArguments, saved: SavedRun
) -> Trainer:
    """The trainer of a fit to a target that continues from a checkpoint.

    Raises:
        TargetError, ValueError: the target or an argument is another than that of the checkpoint.
    """
    values = saved.values
    if saved.of_data:
        raise ValueError(
            "the checkpoint is of a fit to data; go on with NFVI.resume(path).fit_data(x)"
        )
    # An optimiser is code, which a file does not hold: it is passed again.
    refused = [name for name in arguments.given() if name not in ("gradient", "optimizer")]
    refused += ["gradient"] if arguments.gradient not in (None, values["gradient"]) else []
    if refused:
        raise ValueError(f"{refused[0]}= is fixed by the checkpoint; leave it out of fit()")
    if target.dim != values["dim"]:
        raise TargetError(
            f"the checkpoint is of {values['target']!r} with dim={values['dim']}, and"
            f" {target.name!r} has dim={target.dim}; resume with the same target"
        )
    if takes_rows(target):
        _same_rows(target, values)
    beginning = resumed_init(target, values)
    plan = Plan.from_dict(values)
    if arguments.compile != "trace":
        plan = replace(plan, compile=arguments.compile)
    trainer = _trainer(spec, target, plan, arguments.optimizer, beginning)
    saved.continue_in(trainer, "fit()")
    return trainer


def _same_rows(target: MinibatchTarget, values: dict[str, Any]) -> None:
    """Check that a target has the rows of a checkpoint.

    Raises:
        TargetError: it has others, or takes another number of them a step.
    """
    for name, here in (("rows", target.rows), ("batch_size", target.batch_size)):
        if values.get(name) != here:
            raise TargetError(
                f"the checkpoint is of {values['target']!r} with {name}={values.get(name)}, and"
                f" {target.name!r} has {name}={here}; resume with the same target"
            )


def _plan(
    arguments: FitArguments,
    trial: Guide,
    beginning: Beginning,
    steps: int,
    restarts: int,
    seed: int,
    target: Target,
) -> Plan:
    """The plan of a new fit: its arguments, with defaults that suit a guide like ``trial``."""
    anneal, ends_itself = arguments.anneal, isinstance(arguments.steps, str)
    # A guide that is fitted already, or starts at the mode, is not to be flattened first.
    placed = beginning.sources or takes_rows(target)
    anneal = False if anneal is None and placed else anneal
    rate = default_learning_rate(trial) if arguments.optimizer is None else None
    lr = _number("lr", arguments.lr, "a positive number", rate, auto=rate)
    least = "an integer of at least 2"
    adaptive, growing = is_adaptive(arguments.anneal), isinstance(arguments.n_mc, str)
    # These three measure the noise of a step, which the spread of even draws does not tell.
    measured = ends_itself or adaptive or growing
    draws = "iid" if measured else default_draws(trial)
    draws_a_step = default_n_mc(trial.dim, target, arguments.optimizer)
    n_mc = _number("n_mc", arguments.n_mc, least, draws_a_step, auto=FIRST)
    return Plan(
        steps=steps,
        n_mc=n_mc,
        lengths=tempering_lengths(
            anneal, restarts, NOMINAL_STEPS if ends_itself else steps, default_anneal(trial)
        ),
        gradient=default_gradient(trial) if arguments.gradient is None else arguments.gradient,
        lr=lr,
        seed=seed,
        draws=draws if arguments.draws is None else arguments.draws,
        held=_held(arguments.hold, steps, ends_itself, default_hold(trial, target)),
        open_ended=ends_itself,
        growing=growing,
        adaptive=adaptive,
        prune=False if arguments.prune is None else arguments.prune,
        combine="best" if arguments.combine is None else arguments.combine,
        compile=arguments.compile,
    )


def _held(given: float | None, steps: int, ends_itself: bool, default: float) -> int:
    """The steps before the learning rate decays.

    Raises:
        ValueError: it is no fraction, or the fit is to find it.
    """
    if ends_itself and given is None:
        return 0
    if ends_itself:
        raise ValueError(
            f'hold={given!r} is for a number of steps; with steps="auto" the fit finds when the'
            " learning rate is to fall"
        )
    fraction = default if given is None else given
    number = isinstance(fraction, Real) and not isinstance(fraction, bool)
    if not number or not 0 <= float(fraction) < 1:
        raise ValueError(f"hold must be a fraction of the steps from 0 to below 1, got {given!r}")
    return int(fraction * steps)


def _restarts(given: int | None, beginning: Beginning, default: int) -> int:
    """How many restarts: of a fit that is copied, one for each of its guides.

    Raises:
        ValueError: the argument is no such number, or another than that of the guides.
    """
    copied = len(beginning.sources)
    restarts = (copied or default) if given is None else given
    check_whole("restarts", restarts, 1)
    if copied > 1 and restarts != copied:
        raise ValueError(
            f"init= is a mixture of {copied} guides, each of which becomes a restart, and restarts="
            f"{restarts}; leave restarts= out"
        )
    return restarts


def _number(name: str, value: T | Literal["auto"] | None, kind: str, default: T, auto: T) -> T:
    """An argument that may be the word "auto", or ``None`` for a default.

    Raises:
        ValueError: it is another word, or a truth value.
    """
    if value is None:
        return default
    if isinstance(value, str) and value == "auto":
        return auto
    if isinstance(value, str | bool):
        raise ValueError(f'{name} must be {kind} or "auto", got {value!r}')
    return value


def _with_ladder(
    spec: GuideSpec, target: Target, plan: Plan, optimizer: OptimizerSpec, beginning: Beginning
) -> Trainer:
    """A trainer with the learning rate that a ladder finds from the start of the first restart."""
    make = beginning.guides(spec, target)
    start = make(torch.Generator().manual_seed(plan.seed))
    found = find_learning_rate(
        start,
        target,
        generator=torch.Generator(start.device).manual_seed(plan.seed),
        gradient=plan.gradient,
        optimizer=optimizer,
    )
    trainer = _trainer(spec, target, replace(plan, lr=found.lr), optimizer, beginning)
    trainer.gradient_evaluations = found.gradient_evaluations
    trainer.batched_evaluations = found.batched_evaluations
    return trainer


def _trainer(
    spec: GuideSpec, target: Target, plan: Plan, optimizer: OptimizerSpec, beginning: Beginning
) -> Trainer:
    settings = spec.target_settings(target, beginning.label)
    trainer = build_trainer(beginning.guides(spec, target), target, plan, optimizer, settings)
    # What a guide must have to take up the numbers in a checkpoint.
    trainer.settings["placement"] = header_of_guide(trainer.ensemble.template)["placement"]
    logger.debug("fit of %s: %s", target.name, trainer.settings)
    return trainer
