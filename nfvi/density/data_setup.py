"""From the arguments of a fit to data to a trainer that is ready to run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nfvi.density.likelihood import MaximumLikelihood, Rows
from nfvi.guides import Guide
from nfvi.training import (
    Compile,
    Ensemble,
    LearningRate,
    OptimizerSpec,
    Tempering,
    Trainer,
    check_compile,
    make_optimizer,
    stepper,
)
from nfvi.utils import check_flag, check_positive, check_whole

__all__ = [
    "BATCH_SIZE",
    "DATA_LEARNING_RATE",
    "DATA_STEPS",
    "LEAST_EPOCHS",
    "DataPlan",
    "build_data_trainer",
    "data_plan",
    "total_steps",
]

# With all of these `(nsf(bins=8)-perm)*4` comes within 0.05 nats of a tuned fit on a thousand
# points of two circles (docs/benchmarks.md); what each does alone is not on record.
DATA_STEPS = 3_000
# Smaller batches are noisier, which small data like (docs/density.md: 32), and cost more an
# epoch.
BATCH_SIZE = 256
# For more than 76 800 rows, which 3 000 batches would not show ten times each.
LEAST_EPOCHS = 10
# Lowered from 0.005, between what few rows want (0.001, as networks overfit them) and what
# formulas without networks do (0.02).
DATA_LEARNING_RATE = 0.003
# A look is a pass over the held-out rows: of a tenth of the rows, a few per cent of an epoch.
LOOKS = 200
"""Looks at the held-out rows in a fit, at most; fewer where an epoch is longer."""
# Of the looks. The decay of the learning rate brings late gains, which a short patience would
# miss.
PATIENCE = 1 / 3


@dataclass(frozen=True)
class DataPlan:
    """The arguments of a fit to data after checks and defaults; JSON-able, kept in checkpoints.

    Attributes:
        epochs: how often each row is seen.
        batch_size: rows a step.
        steps: optimiser steps.
        every: steps between looks at the held-out rows.
        patience: looks without a gain after which the fit stops.
        standardize: whether columns were given mean 0 and sd 1.
        lr: learning rate at the top of the schedule, or ``None`` for the optimiser's own.
        seed: of everything random.
        compile: ``"trace"``, ``"inductor"`` or ``False``: whether steps may be run as a graph.
    """

    epochs: int
    batch_size: int
    steps: int
    every: int
    patience: int
    standardize: bool
    lr: float | None
    seed: int
    compile: Compile = "trace"

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, for a JSON header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataPlan:
        """The plan that :meth:`as_dict` wrote, among other values."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})


def data_plan(
    n: int,
    *,
    epochs: int | None,
    batch_size: int | None,
    patience: int | None,
    standardize: bool,
    optimizer: OptimizerSpec,
    lr: float | None,
    seed: int,
    compile: Compile = "trace",
) -> DataPlan:
    """The plan for n rows to train on.

    Raises:
        ValueError: an argument is out of its range.
    """
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    if epochs is not None:
        check_whole("epochs", epochs, 1)
    if patience is not None:
        check_whole("patience", patience, 1)
    if lr is not None:
        check_positive("lr", lr)
    check_flag("standardize", standardize)
    check_compile(compile)
    batch = min(BATCH_SIZE if batch_size is None else batch_size, n)
    if epochs is None:
        epochs = max(math.ceil(DATA_STEPS * batch / n), LEAST_EPOCHS)
    steps = total_steps(epochs, n, batch)
    every = max(math.ceil(n / batch), math.ceil(steps / LOOKS))
    if patience is None:
        patience = max(math.ceil(PATIENCE * steps / every), 5)
    if lr is None and optimizer is None:
        lr = DATA_LEARNING_RATE
    return DataPlan(epochs, batch, steps, every, patience, standardize, lr, seed, compile)


def total_steps(epochs: int, n: int, batch_size: int) -> int:
    """Steps in which each of n rows is seen ``epochs`` times."""
    return math.ceil(epochs * n / batch_size)


def build_data_trainer(
    make_guide: Callable[[torch.Generator], Guide],
    rows: Rows,
    log_scale: float,
    plan: DataPlan,
    optimizer: OptimizerSpec,
    settings: dict[str, Any],
) -> Trainer:
    """A trainer at step 0, with every random choice fixed by ``plan.seed``.

    Args:
        make_guide: a new guide that starts from the given generator.
        rows: what to fit, standardised.
        log_scale: Σ log sd of the standardisation.
        plan: the arguments.
        optimizer: as for ``NFVI.fit``.
        settings: JSON-able values kept in checkpoints beside the plan.
    """
    start = torch.Generator().manual_seed(plan.seed)
    ensemble = Ensemble([make_guide(start)])
    made = make_optimizer(optimizer, ensemble.flat, plan.lr)
    return Trainer(
        ensemble,
        MaximumLikelihood(rows, plan.batch_size, plan.seed, log_scale),
        made,
        LearningRate.over(plan.steps),
        Tempering((0,)),
        torch.Generator(ensemble.flat.device).manual_seed(plan.seed),
        {**settings, **plan.as_dict(), "optimizer": type(made).__name__},
        traced=stepper(plan.compile, plan.steps, ensemble.flat.device, {}),
    )
