"""What NFVI.fit prepares: a trainer for a target, new or from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from nfvi.errors import TargetError
from nfvi.guides import header_of_guide
from nfvi.inference.init import Beginning, read_init, resumed_init
from nfvi.targets import Target
from nfvi.training import (
    CAP,
    FIRST,
    NOMINAL_STEPS,
    STEPS,
    OptimizerSpec,
    Plan,
    Trainer,
    build_trainer,
    default_gradient,
    default_learning_rate,
    default_n_mc,
    default_restarts,
    find_learning_rate,
    is_adaptive,
    restore,
    tempering_lengths,
)
from nfvi.utils import check_whole

if TYPE_CHECKING:
    from nfvi.inference.nfvi import NFVI

__all__ = ["check_optimizer", "target_dtype", "target_trainer"]


def target_dtype(nfvi: NFVI, target: Target) -> torch.dtype:
    """The dtype of a guide for a target."""
    return nfvi.dtype or getattr(target, "dtype", None) or torch.get_default_dtype()


def target_trainer(
    nfvi: NFVI, target: Target, given: dict[str, Any], gradient: Any, optimizer: OptimizerSpec
) -> Trainer:
    """The trainer of a fit to a target, from the arguments of :meth:`nfvi.NFVI.fit`.

    Raises:
        TargetError, ValueError: an argument is wrong, or another than that of the checkpoint.
    """
    if nfvi._checkpoint is not None:
        return _resumed(nfvi, target, given, gradient, optimizer)
    ends_itself = _is_auto("steps", given["steps"], "an integer of at least 1")
    steps = STEPS if given["steps"] is None else CAP if ends_itself else given["steps"]
    check_whole("steps", steps, 1)
    dtype = target_dtype(nfvi, target)
    beginning = read_init(nfvi, target, given["init"], dtype)
    trial = nfvi._guide(target.dim, dtype, torch.Generator().manual_seed(0))
    restarts = _restarts(given["restarts"], beginning, default_restarts(trial, target, optimizer))
    # A guide that is fitted already is not to be flattened first.
    anneal = False if given["anneal"] is None and beginning.sources else given["anneal"]
    auto = _is_auto("lr", given["lr"], "a positive number")
    default = default_learning_rate(trial) if optimizer is None else None
    growing = _is_auto("n_mc", given["n_mc"], "an integer of at least 2")
    n_mc = default_n_mc(target.dim) if given["n_mc"] is None else given["n_mc"]
    plan = Plan(
        steps=steps,
        n_mc=FIRST if growing else n_mc,
        lengths=tempering_lengths(anneal, restarts, NOMINAL_STEPS if ends_itself else steps),
        gradient=default_gradient(trial) if gradient is None else gradient,
        lr=default if given["lr"] is None or auto else given["lr"],
        seed=nfvi._fresh_seed(),
        draws="iid" if given["draws"] is None else given["draws"],
        open_ended=ends_itself,
        growing=growing,
        adaptive=is_adaptive(given["anneal"]),
        prune=False if given["prune"] is None else given["prune"],
        combine="best" if given["combine"] is None else given["combine"],
    )
    if beginning.search is not None or auto:
        _trainer(nfvi, target, plan, optimizer, beginning)  # what is wrong is said before all work
    beginning = beginning.found(nfvi, target, dtype, plan.seed)
    make = _with_ladder if auto else _trainer
    trainer = make(nfvi, target, plan, optimizer, beginning)
    trainer.gradient_evaluations += beginning.gradient_evaluations
    trainer.batched_evaluations += beginning.batched_evaluations
    return trainer


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


def _is_auto(name: str, value: object, kind: str) -> bool:
    """Whether an argument is the word "auto", and not another word.

    Raises:
        ValueError: it is another word, or a truth value.
    """
    if isinstance(value, str) and value == "auto":
        return True
    if isinstance(value, str | bool):
        raise ValueError(f'{name} must be {kind} or "auto", got {value!r}')
    return False


def _with_ladder(
    nfvi: NFVI, target: Target, plan: Plan, optimizer: OptimizerSpec, beginning: Beginning
) -> Trainer:
    """A trainer with the learning rate that a ladder finds from the start of the first restart."""
    make = beginning.guides(nfvi, target.dim, target_dtype(nfvi, target))
    start = make(torch.Generator().manual_seed(plan.seed))
    found = find_learning_rate(
        start,
        target,
        generator=torch.Generator(start.device).manual_seed(plan.seed),
        gradient=plan.gradient,
        optimizer=optimizer,
    )
    trainer = _trainer(nfvi, target, replace(plan, lr=found.lr), optimizer, beginning)
    trainer.gradient_evaluations = found.gradient_evaluations
    trainer.batched_evaluations = found.batched_evaluations
    return trainer


def _resumed(
    nfvi: NFVI, target: Target, given: dict[str, Any], gradient: Any, optimizer: OptimizerSpec
) -> Trainer:
    if nfvi._checkpoint is None:
        raise ValueError("nothing to resume from")
    tensors, values = nfvi._checkpoint
    if "fingerprint" in values:
        raise ValueError(
            "the checkpoint is of a fit to data; go on with NFVI.resume(path).fit_data(x)"
        )
    refused = [name for name, value in given.items() if value is not None]
    refused += ["gradient"] if gradient not in (None, values["gradient"]) else []
    if refused:
        raise ValueError(f"{refused[0]}= is fixed by the checkpoint; leave it out of fit()")
    if target.dim != values["dim"]:
        raise TargetError(
            f"the checkpoint is of {values['target']!r} with dim={values['dim']}, and"
            f" {target.name!r} has dim={target.dim}; resume with the same target"
        )
    beginning = resumed_init(target, values)
    trainer = _trainer(nfvi, target, Plan.from_dict(values), optimizer, beginning)
    check_optimizer(trainer, values, "fit()")
    restore(trainer, tensors, values)
    return trainer


def check_optimizer(trainer: Trainer, values: dict[str, Any], door: str) -> None:
    """Check that a trainer has the optimiser that a checkpoint was written with.

    Raises:
        ValueError: it has another.
    """
    if type(trainer.optimizer).__name__ != values["optimizer"]:
        raise ValueError(
            f"the checkpoint was written with optimizer={values['optimizer']}; pass the same"
            f" optimizer= to {door}"
        )


def _trainer(
    nfvi: NFVI, target: Target, plan: Plan, optimizer: OptimizerSpec, beginning: Beginning
) -> Trainer:
    dtype = target_dtype(nfvi, target)
    settings = {
        **nfvi._settings(target.dim, dtype),
        "target": target.name,
        "named": target.named,
        "init": beginning.label,
    }
    make = beginning.guides(nfvi, target.dim, dtype)
    trainer = build_trainer(make, target, plan, optimizer, settings)
    # What a guide must have to take up the numbers in a checkpoint.
    trainer.settings["placement"] = header_of_guide(trainer.ensemble.template)["placement"]
    return trainer
