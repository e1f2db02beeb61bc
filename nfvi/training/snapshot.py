"""A running fit as tensors and JSON-able values, and back, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nfvi.training.loop_state import LoopState, Pruned
from nfvi.training.schedule import LearningRate
from nfvi.training.state import Callback, CallbackLike
from nfvi.utils import complete, over, under

__all__ = ["hand_back", "restore", "snapshot"]


def snapshot(
    loop: LoopState, callbacks: Sequence[CallbackLike]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that the rest of a run depends on, and what its callbacks have recorded."""
    kept = _with_state(callbacks)
    tensors = {"flat": loop.ensemble.flat.detach(), "generator": loop.generator.get_state()}
    tensors |= over("guard.", loop.guard.state_dict())
    tensors |= over("history.", loop.history.state_dict())
    tensors |= over("fixed.", loop.ensemble.fixed)
    if loop.rates is not None:
        tensors["rates"] = loop.rates
    tensors |= over("tempering.", loop.tempering.state_dict())
    for i, control in enumerate(loop.controls):
        tensors |= over(f"control.{i}.", control.state_dict(loop))
    for i, callback in enumerate(kept):
        tensors |= over(f"callback.{i}.", callback.state_dict())
    values = {
        "cycles": loop.schedule.cycles,
        "hold": loop.schedule.hold,
        "ensemble_rows": loop.rows,
        "pruned_restarts": [pruned.as_dict() for pruned in loop.pruned],
        "last": loop.last,
        "ending": loop.ending,
        "stopped": loop.stopped,
        "gradient_evaluations": loop.gradient_evaluations,
        "batched_evaluations": loop.batched_evaluations,
        "wall_time": loop.wall_time,
        "callbacks": [type(callback).__name__ for callback in kept],
        "optimizer": type(loop.optimizer).__name__,
        "optimizer_state": _pack(loop.optimizer.state_dict(), "optimizer", tensors),
    }
    return tensors, {**loop.settings, **values}


@torch.no_grad()
def restore(loop: LoopState, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Bring a new loop to where :func:`snapshot` was taken.

    What callbacks recorded waits in ``loop.recorded`` for the run that names them.

    Args:
        loop: made of the same arguments.
        tensors: as read from the file.
        values: likewise, with the name of the ``"file"``.

    Raises:
        FitError: tensors or values are not those of such a loop.
    """
    with complete(values.get("file", "the checkpoint"), "checkpoint"):
        _restore(loop, tensors, values)


def _restore(loop: LoopState, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    # What is taken up is changed in place, and one checkpoint may be continued from twice.
    tensors = {name: value.clone() for name, value in tensors.items()}
    _take_rows(loop, values)
    flat = loop.ensemble.flat
    flat.copy_(tensors["flat"])
    loop.last_good = flat.detach().clone()
    loop.generator.set_state(tensors["generator"].cpu())
    loop.guard.load_state_dict(under("guard.", tensors))
    loop.history.load_state_dict(under("history.", tensors), flat.device)
    loop.ensemble.fixed.update(under("fixed.", tensors))
    loop.optimizer.load_state_dict(_unpack(values["optimizer_state"], tensors))
    loop.rates = tensors.get("rates")
    for i, control in enumerate(loop.controls):
        control.load_state_dict(under(f"control.{i}.", tensors), loop)
    cycles = tuple((int(n), float(p)) for n, p in values["cycles"])
    loop.schedule = LearningRate(cycles, values.get("hold", 0))
    loop.tempering.load_state_dict(under("tempering.", tensors))
    loop.last = values["last"]
    loop.ending = values.get("ending", "steps")
    loop.stopped = None if values["stopped"] == "interrupted" else values["stopped"]
    loop.gradient_evaluations = values["gradient_evaluations"]
    loop.batched_evaluations = values.get("batched_evaluations", loop.step)
    loop.wall_time = values["wall_time"]
    loop.traced.take_up(values.get("evaluation"))
    loop.settings["evaluation"] = loop.traced.text
    loop.recorded = [
        (name, under(f"callback.{i}.", tensors)) for i, name in enumerate(values["callbacks"])
    ]


def _take_rows(loop: LoopState, values: dict[str, Any]) -> None:
    """Remove the restarts that had been removed already."""
    rows = values.get("ensemble_rows", loop.rows)
    if len(rows) < loop.restarts:
        loop.keep(torch.tensor([i for i, row in enumerate(loop.rows) if row in rows]))
    loop.pruned = tuple(Pruned(**pruned) for pruned in values.get("pruned_restarts", ()))


def hand_back(
    recorded: Sequence[tuple[str, dict[str, Tensor]]], callbacks: Sequence[CallbackLike]
) -> None:
    """Give callbacks what a checkpoint holds of them, by position.

    Callbacks that keep nothing, such as a progress bar or a plain function, are not counted.

    Raises:
        ValueError: the callbacks are others than those of the run that was stopped.
    """
    kept = _with_state(callbacks)
    there, here = [name for name, _ in recorded], [type(c).__name__ for c in kept]
    if there != here:
        raise ValueError(
            f"the checkpoint holds the records of callbacks {_list(there)}, and callbacks= has"
            f" {_list(here)}: pass the same ones in the same order"
        )
    for callback, (_, state) in zip(kept, recorded, strict=True):
        callback.load_state_dict(state)


def _with_state(callbacks: Sequence[CallbackLike]) -> list[Callback]:
    return [
        c
        for c in callbacks
        if isinstance(c, Callback) and type(c).state_dict is not Callback.state_dict
    ]


def _list(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nested structure with each tensor put into ``tensors`` and named in its place."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[k, _pack(v, f"{name}.{k}", tensors)] for k, v in value.items()]
        return {"items": items}
    if isinstance(value, list | tuple):
        return [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"a checkpoint cannot keep {name} = {value!r} of this optimizer; fit without Checkpoint"
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {k: _unpack(v, tensors) for k, v in value["items"]}
    return value
