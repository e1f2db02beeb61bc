"""What NFVI.fit_data prepares: rows, their units, and a trainer, new or from a checkpoint."""

from __future__ import annotations

from dataclasses import replace

import torch

from nfvi.density import (
    Data,
    DataPlan,
    Running,
    Split,
    Standardization,
    Validation,
    build_data_trainer,
    data_plan,
    fingerprint,
    fraction_of,
    make_rows,
    notes_on,
    split_data,
    warn_of,
)
from nfvi.inference.arguments import DataArguments
from nfvi.inference.guide_spec import GuideSpec
from nfvi.inference.saved_run import SavedRun
from nfvi.training import OptimizerSpec

__all__ = ["data_fit", "resumed_data_fit"]

FRACTION = 0.1


def data_fit(spec: GuideSpec, data: Data, arguments: DataArguments) -> Running:
    """A new fit to data that is ready to run.

    Raises:
        ValueError: an argument is wrong.
    """
    seed = spec.fresh_seed()
    split = split_data(data, arguments.validation, seed)
    batch_size = data.batch_size if arguments.batch_size is None else arguments.batch_size
    plan = data_plan(
        len(split.train),
        epochs=arguments.epochs,
        batch_size=batch_size,
        patience=arguments.patience,
        standardize=arguments.standardize,
        optimizer=arguments.optimizer,
        lr=arguments.lr,
        seed=seed,
        compile=arguments.compile,
    )
    return _running(spec, split, plan, fraction_of(arguments.validation), arguments.optimizer)


def resumed_data_fit(
    spec: GuideSpec, data: Data, arguments: DataArguments, saved: SavedRun
) -> Running:
    """A fit to data that continues from a checkpoint.

    Raises:
        ValueError: the data or an argument are others than those of the checkpoint.
    """
    values = saved.values
    if not saved.of_data:
        raise ValueError(
            "the checkpoint is of a fit to a target; go on with NFVI.resume(path).fit(target)"
        )
    plan, before = DataPlan.from_dict(values), values["validation"]
    refused = _refused(arguments, plan, before)
    if refused:
        raise ValueError(f"{refused[0]}= is fixed by the checkpoint; leave it out of fit_data()")
    if arguments.compile != "trace":
        plan = replace(plan, compile=arguments.compile)
    split = split_data(data, arguments.validation if before is None else before, plan.seed)
    if fingerprint(split) != values["fingerprint"]:
        raise ValueError(
            f"these are not the data of the checkpoint, {values['rows']:,} rows to train on and"
            f" {values['held_out']:,} held out, in that order and with those weights and contexts:"
            " pass the same x, weights=, context= and held-out data"
        )
    # A checkpoint of an earlier version continues in the units that it was written in.
    robust = values.get("robust", False)
    running = _running(spec, split, plan, before, arguments.optimizer, robust=robust)
    saved.continue_in(running.trainer, "fit_data()")
    return running


def _refused(arguments: DataArguments, plan: DataPlan, before: float | None) -> list[str]:
    """The arguments that differ from those of a checkpoint, which held out ``before`` of the rows.

    The default fraction is no word against another one; held-out data themselves (no fraction)
    are told apart by the fingerprint.
    """
    fraction = fraction_of(arguments.validation)
    refused = arguments.given()
    refused += ["standardize"] if arguments.standardize not in (True, plan.standardize) else []
    if None not in (fraction, before) and fraction not in (FRACTION, before):
        refused.append("validation")
    return refused


def _running(
    spec: GuideSpec,
    split: Split,
    plan: DataPlan,
    fraction: float | None,
    optimizer: OptimizerSpec,
    *,
    robust: bool = True,
) -> Running:
    train = split.train
    dtype = spec.dtype_or(train.kind if train.tensor else None)
    units = Standardization.of(train, split.held_out, wanted=plan.standardize, robust=robust)
    notes = notes_on(split, units, own=fraction is None, standardized=plan.standardize)
    warn_of(notes)
    like = torch.empty(0, dtype=dtype, device=spec.device)
    dim, context_dim = train.x.shape[1], 0 if train.context is None else train.context.shape[1]
    settings = {
        **spec.settings(dim, dtype),
        "context_dim": context_dim,
        "columns": train.columns,
        "table": None if train.table is None else train.table.as_settings(),
        "draws": str(train.kind or dtype).removeprefix("torch."),
        "rows": len(train),
        "held_out": 0 if split.held_out is None else len(split.held_out),
        "validation": fraction,
        "fingerprint": fingerprint(split),
        "robust": robust,
        "notes": notes,
    }
    trainer = build_data_trainer(
        lambda generator: spec.guide(dim, dtype, generator, context_dim),
        make_rows(train, units, like),
        units.log_scale,
        plan,
        optimizer,
        settings,
    )
    watch = None
    if split.held_out is not None:
        rows = make_rows(split.held_out, units, like)
        watch = Validation(rows, units.log_scale, plan.every, plan.patience)
    return Running(trainer, split, units, watch)
