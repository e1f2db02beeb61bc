"""A running fit as tensors and JSON-able values, and back, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.training.pruning import Pruned, keep_restarts
from nfvi.training.schedule import LearningRate
from nfvi.training.state import Callback, CallbackLike

if TYPE_CHECKING:
    from nfvi.training.loop import Trainer

__all__ = ["hand_back", "restore", "snapshot"]


def snapshot(
    trainer: Trainer, callbacks: Sequence[CallbackLike]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that the rest of a run depends on, and what its callbacks have recorded."""
    kept = _with_state(callbacks)
    tensors = {"flat": trainer.ensemble.flat.detach(), "generator": trainer.generator.get_state()}
    tensors |= _over("guard.", trainer.guard.state_dict())
    tensors |= _over("history.", trainer.history.state_dict())
    tensors |= _over("fixed.", trainer.ensemble.fixed)
    if trainer.rates is not None:
        tensors["rates"] = trainer.rates
    tensors |= _over("tempering.", trainer.tempering.state_dict())
    for i, control in enumerate(trainer.controls):
        tensors |= _over(f"control.{i}.", control.state_dict(trainer))
    for i, callback in enumerate(kept):
        tensors |= _over(f"callback.{i}.", callback.state_dict())
    values = {
        "cycles": trainer.schedule.cycles,
        "hold": trainer.schedule.hold,
        "ensemble_rows": trainer.rows,
        "pruned_restarts": [pruned.as_dict() for pruned in trainer.pruned],
        "last": trainer.last,
        "ending": trainer.ending,
        "stopped": trainer.stopped,
        "gradient_evaluations": trainer.gradient_evaluations,
        "batched_evaluations": trainer.batched_evaluations,
        "wall_time": trainer.wall_time,
        "callbacks": [type(callback).__name__ for callback in kept],
        "optimizer": type(trainer.optimizer).__name__,
        "optimizer_state": _pack(trainer.optimizer.state_dict(), "optimizer", tensors),
    }
    return tensors, {**trainer.settings, **values}


@torch.no_grad()
def restore(trainer: Trainer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Bring a new trainer to where :func:`snapshot` was taken.

    What callbacks recorded waits in ``trainer.recorded`` for the run that names them.
    """
    # What is taken up is changed in place, and one checkpoint may be gone on from twice.
    tensors = {name: value.clone() for name, value in tensors.items()}
    _take_rows(trainer, values)
    flat = trainer.ensemble.flat
    flat.copy_(tensors["flat"])
    trainer.last_good = flat.detach().clone()
    trainer.generator.set_state(tensors["generator"].cpu())
    trainer.guard.load_state_dict(_under("guard.", tensors))
    trainer.history.load_state_dict(_under("history.", tensors), flat.device)
    trainer.ensemble.fixed.update(_under("fixed.", tensors))
    trainer.optimizer.load_state_dict(_unpack(values["optimizer_state"], tensors))
    trainer.rates = tensors.get("rates")
    for i, control in enumerate(trainer.controls):
        control.load_state_dict(_under(f"control.{i}.", tensors), trainer)
    cycles = tuple((int(n), float(p)) for n, p in values["cycles"])
    trainer.schedule = LearningRate(cycles, values.get("hold", 0))
    trainer.tempering.load_state_dict(_under("tempering.", tensors))
    trainer.last = values["last"]
    trainer.ending = values.get("ending", "steps")
    trainer.stopped = None if values["stopped"] == "interrupted" else values["stopped"]
    trainer.gradient_evaluations = values["gradient_evaluations"]
    trainer.batched_evaluations = values.get("batched_evaluations", trainer.step)
    trainer.wall_time = values["wall_time"]
    trainer.recorded = [
        (name, _under(f"callback.{i}.", tensors)) for i, name in enumerate(values["callbacks"])
    ]


def _take_rows(trainer: Trainer, values: dict[str, Any]) -> None:
    """Remove the restarts that had been removed already."""
    rows = values.get("ensemble_rows", trainer.rows)
    if len(rows) < trainer.restarts:
        keep_restarts(trainer, torch.tensor([row in rows for row in trainer.rows]))
    trainer.pruned = tuple(Pruned(**pruned) for pruned in values.get("pruned_restarts", ()))


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


def _over(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
