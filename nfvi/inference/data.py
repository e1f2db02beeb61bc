"""What NFVI.fit_data prepares: rows, their units, and a trainer, new or from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    split_data,
)
from nfvi.inference.target import check_optimizer
from nfvi.training import OptimizerSpec, restore

if TYPE_CHECKING:
    from nfvi.inference.nfvi import NFVI

__all__ = ["data_fit"]

FRACTION = 0.1


def data_fit(
    nfvi: NFVI,
    data: Data,
    validation: Any,
    standardize: bool,
    given: dict[str, Any],
    optimizer: OptimizerSpec,
) -> Running:
    """A fit to data that is ready to run, from the arguments of :meth:`nfvi.NFVI.fit_data`.

    Raises:
        ValueError: an argument is wrong, or another than that of the checkpoint.
    """
    if nfvi._checkpoint is not None:
        return _resumed(nfvi, data, validation, standardize, given, optimizer)
    seed = nfvi._fresh_seed()
    split = split_data(data, validation, seed)
    if given["batch_size"] is None:
        given = {**given, "batch_size": data.batch_size}
    plan = data_plan(
        len(split.train), standardize=standardize, optimizer=optimizer, seed=seed, **given
    )
    return _running(nfvi, split, plan, fraction_of(validation), optimizer)


def _resumed(
    nfvi: NFVI,
    data: Data,
    validation: Any,
    standardize: bool,
    given: dict[str, Any],
    optimizer: OptimizerSpec,
) -> Running:
    if nfvi._checkpoint is None:
        raise ValueError("nothing to resume from")
    tensors, values = nfvi._checkpoint
    if "fingerprint" not in values:
        raise ValueError(
            "the checkpoint is of a fit to a target; go on with NFVI.resume(path).fit(target)"
        )
    plan = DataPlan.from_dict(values)
    fraction, before = fraction_of(validation), values["validation"]
    refused = [name for name, value in given.items() if value is not None]
    refused += ["standardize"] if standardize not in (True, plan.standardize) else []
    refused += (
        ["validation"]
        if None not in (fraction, before)
        and fraction
        not in (
            FRACTION,
            before,
        )
        else []
    )
    if refused:
        raise ValueError(f"{refused[0]}= is fixed by the checkpoint; leave it out of fit_data()")
    split = split_data(data, validation if before is None else before, plan.seed)
    if fingerprint(split) != values["fingerprint"]:
        raise ValueError(
            f"these are not the data of the checkpoint, {values['rows']:,} rows to train on and"
            f" {values['held_out']:,} held out, in that order and with those weights and contexts:"
            " pass the same x, weights=, context= and held-out data"
        )
    running = _running(nfvi, split, plan, before, optimizer)
    check_optimizer(running.trainer, values, "fit_data()")
    restore(running.trainer, tensors, values)
    return running


def _running(
    nfvi: NFVI, split: Split, plan: DataPlan, fraction: float | None, optimizer: OptimizerSpec
) -> Running:
    train = split.train
    dtype = nfvi.dtype or (train.kind if train.tensor else None) or torch.get_default_dtype()
    units = Standardization.of(train, wanted=plan.standardize)
    like = torch.empty(0, dtype=dtype, device=nfvi.device)
    dim, context_dim = train.x.shape[1], 0 if train.context is None else train.context.shape[1]
    settings = {
        **nfvi._settings(dim, dtype),
        "context_dim": context_dim,
        "columns": train.columns,
        "draws": str(train.kind or dtype).removeprefix("torch."),
        "rows": len(train),
        "held_out": 0 if split.held_out is None else len(split.held_out),
        "validation": fraction,
        "fingerprint": fingerprint(split),
    }
    trainer = build_data_trainer(
        lambda generator: nfvi._guide(dim, dtype, generator, context_dim),
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
