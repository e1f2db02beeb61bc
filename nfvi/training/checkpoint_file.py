"""The file of a checkpoint, with its values and tensors checked against each other."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor

from nfvi.guides import forms_of_header
from nfvi.training.history import History
from nfvi.training.loop_state import Pruned
from nfvi.training.settings import check_settings
from nfvi.training.setup import Plan
from nfvi.utils import (
    Amount,
    Count,
    Positive,
    check_entries,
    complete,
    read_file,
    record_of,
    under,
)

__all__ = ["read_checkpoint"]

REQUIRED = {
    "cycles": tuple[tuple[Positive, float], ...],
    "last": Count,
    "stopped": str | None,
    "gradient_evaluations": Count,
    "wall_time": Amount,
    "callbacks": tuple[str, ...],
    "optimizer_state": Any,
}
# Absent in files of earlier versions.
OPTIONAL = {
    "hold": Count,
    "ensemble_rows": tuple[Count, ...],
    "pruned_restarts": tuple[Any, ...],
    "ending": str,
    "batched_evaluations": Count,
}
GUARD = {
    "mean_square": None,
    "weight": None,
    "alive": torch.bool,
    "skipped": torch.int64,
    "in_a_row": torch.int64,
}


def read_checkpoint(
    path: str | os.PathLike[str], device: torch.device | str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and values that :func:`~nfvi.training.snapshot.snapshot` gave to a file.

    What a guide of its formula would hold is compared with what is there, before one is made.

    Args:
        path: the file.
        device: of the tensors; default the CPU.

    Returns:
        Tensors by name, and values by name with that of the file as ``"file"``.

    Raises:
        FileNotFoundError: there is no such file.
        FitError: the file is damaged, no checkpoint, or of a newer version; or a value or tensor is
            missing or wrong, which the message names.
    """
    tensors, values = read_file(path, "checkpoint", device)
    with complete(path, "checkpoint"):
        check_settings(values, "data" if "fingerprint" in values else "target", "")
        read = check_entries(values, REQUIRED, OPTIONAL)
        if "fingerprint" not in values:
            Plan.from_dict(values)
        restarts = len(values["lengths"]) if "lengths" in values else 1
        rows = read.get("ensemble_rows", tuple(range(restarts)))
        _check_course(read)
        _check_restarts(read, rows, restarts, tensors)
        _check_guides(values, tensors, len(rows))
    return tensors, {**values, "file": str(path)}


def _check_course(read: dict[str, Any]) -> None:
    cycles, hold = read["cycles"], read.get("hold", 0)
    if not cycles:
        raise ValueError("its entry cycles is empty")
    if hold >= cycles[0][0]:
        raise ValueError(f"its entry hold is {hold}, and its first cycle has {cycles[0][0]} steps")
    total = sum(length for length, _ in cycles)
    if read["last"] > total:
        raise ValueError(f"its entry last is {read['last']}, and its cycles have {total} steps")


def _check_restarts(
    read: dict[str, Any], rows: tuple[int, ...], restarts: int, tensors: dict[str, Tensor]
) -> None:
    if not rows or list(rows) != sorted(set(rows)) or rows[-1] >= restarts:
        raise ValueError(f"its entry ensemble_rows is {list(rows)}, of {restarts} restarts")
    for k, one in enumerate(read.get("pruned_restarts", ())):
        record_of(Pruned, one, f"pruned_restarts[{k}]", index=Count, step=Count, skipped=Count)
    history = History("log_likelihood" if "fingerprint" in read else "elbo")
    history.load_state_dict(under("history.", tensors))
    if len(history) and history.loss.shape[1] != restarts:
        raise ValueError(f"its history has {history.loss.shape[1]} restarts, and not {restarts}")


def _check_guides(values: dict[str, Any], tensors: dict[str, Tensor], rows: int) -> None:
    """Check parameters, buffers and what goes with them, one row for each guide."""
    dtype = getattr(torch, values["dtype"])
    names = ("formula", "dim", "base", "dtype", "context_dim", "placement")
    header = {name: values[name] for name in names if name in values}
    count, there = 0, tensors["flat"].numel() if "flat" in tensors else 0
    fixed = set()
    for name, form in forms_of_header(header, ""):
        if not form.trained:
            fixed.add(name)
            _check_tensor(tensors, f"fixed.{name}", (rows, *form.shape), form.dtype)
        count += math.prod(form.shape) if form.trained else 0
        if count * rows > there:
            break
    _check_tensor(tensors, "flat", (rows, count), dtype)
    if more := set(under("fixed.", tensors)) - fixed:
        raise ValueError(f"its formula has no tensor {min(more)!r}")
    _check_tensor(tensors, "generator", None, torch.uint8)
    for name, kind in GUARD.items():
        _check_tensor(tensors, f"guard.{name}", (rows,), kind or dtype)
    if "rates" in tensors:
        _check_tensor(tensors, "rates", (rows,), dtype)
    for name in ("beta", "rate") if values.get("adaptive", False) else ():
        _check_tensor(tensors, f"tempering.{name}", (rows,), torch.float64)


def _check_tensor(
    tensors: dict[str, Tensor], name: str, shape: tuple[int, ...] | None, dtype: torch.dtype | None
) -> None:
    if name not in tensors:
        raise ValueError(f"its tensor {name!r} is not there")
    found = tensors[name]
    if (shape is not None and tuple(found.shape) != shape) or dtype not in (None, found.dtype):
        raise ValueError(
            f"its tensor {name!r} has shape {tuple(found.shape)} and {found.dtype}; its formula and"
            f" restarts need {shape} and {dtype}"
        )
