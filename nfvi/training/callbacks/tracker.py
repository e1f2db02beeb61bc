"""Recording anything that can be computed from the state of a fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from nfvi.training.state import Callback, Stop, TrainState
from nfvi.utils import check_whole, next_multiple

__all__ = ["Tracker"]


class Tracker(Callback):
    """Records the value of functions of the state: ``tracker["name"]`` (records, \\*shape).

    Each function takes the :class:`~nfvi.TrainState` after a step, whose tensors have one row for
    each of the R restarts, and returns a tensor, an array or a number, of the same shape each time.
    What it returns is copied to the CPU. Steps that are multiples of ``every`` are recorded. A
    tracker that is used for a second fit forgets the first; with :meth:`nfvi.Fit.refine` it goes
    on.

    In PyMC3, ``Tracker(mean=approx.mean.eval)`` takes functions without an argument, or of
    ``(approx, losses, i)``, and keeps a list. Here it is one argument, the state, and a tensor:
    ``Tracker(loc=lambda state: state.parameters["loc_1"])``. The mean and sd of the fitted
    distribution, which have no closed form for most flows, are those of draws:
    ``Tracker(every=100, mean=lambda state: state.guide().sample(1000).mean(0))``.

    Args:
        every: steps between records, at least 1.
        functions: what to record, by name; ``every`` cannot be a name.

    Attributes:
        every: steps between records.

    Raises:
        TypeError: something is not a function of one argument.
        ValueError: ``every`` is not an integer of at least 1, or there is nothing to record.

    Example:
        >>> from nfvi import NFVI
        >>> tracker = Tracker(every=10, elbo=lambda state: state.elbo)
        >>> fit = NFVI("scale-loc").fit(
        ...     lambda z: -(z**2).sum(-1) / 2, dim=2, steps=100, restarts=3, callbacks=[tracker]
        ... )
        >>> tracker["elbo"].shape
        torch.Size([10, 3])
    """

    def __init__(self, every: int = 1, **functions: Callable[[TrainState], Any]) -> None:
        if callable(every):
            raise TypeError("every= is the number of steps between records, not a name for a value")
        check_whole("every", every, 1)
        if not functions:
            raise ValueError("Tracker needs functions to record: Tracker(elbo=lambda s: s.elbo)")
        for name, function in functions.items():
            _check(name, function)
        self.every = every
        self._functions = functions
        self._steps: list[int] = []
        self._values: dict[str, list[Tensor]] = {name: [] for name in functions}

    def __repr__(self) -> str:
        return f"<Tracker of {', '.join(self.names)}: {len(self)} records>"

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, name: str) -> Tensor:
        """The records of one value (records, \\*shape)."""
        if name not in self._values:
            raise KeyError(f"{name!r} is not tracked; these are: {', '.join(self.names)}")
        if not self._steps:
            raise ValueError(f"nothing was recorded: no step was a multiple of every={self.every}")
        return torch.stack(self._values[name])

    @property
    def names(self) -> tuple[str, ...]:
        """What is tracked."""
        return tuple(self._functions)

    @property
    def steps(self) -> Tensor:
        """The steps that were recorded (records), counted from 1."""
        return torch.tensor(self._steps, dtype=torch.int64)

    def open(self, state: TrainState) -> None:
        kept = sum(step <= state.step for step in self._steps)
        self._steps = self._steps[:kept]
        self._values = {name: values[:kept] for name, values in self._values.items()}

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        if state.step % self.every == 0:
            new = {name: self._evaluate(name, state) for name in self._functions}
            self._steps.append(state.step)
            for name, value in new.items():
                self._values[name].append(value)
        return None

    def state_dict(self) -> dict[str, Tensor]:
        values = {name: self[name] if self._steps else torch.empty(0) for name in self.names}
        return {"steps": self.steps, **{f"value.{name}": value for name, value in values.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        found = [key.removeprefix("value.") for key in state if key.startswith("value.")]
        if set(found) != set(self.names):
            raise ValueError(
                f"the checkpoint holds a Tracker of {_words(found)}, and this one is of"
                f" {_words(self.names)}"
            )
        self._steps = state["steps"].tolist()
        self._values = {name: list(state[f"value.{name}"].cpu()) for name in self.names}

    def _evaluate(self, name: str, state: TrainState) -> Tensor:
        returned = self._functions[name](state)
        try:
            # A float keeps its 53 bits whatever the default dtype is.
            dtype = torch.float64 if isinstance(returned, float) else None
            value = torch.as_tensor(returned, dtype=dtype).detach().cpu().clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"Tracker: {name} returned {type(returned).__name__}, not a tensor, array or number"
            ) from error
        earlier = self._values[name]
        if earlier and value.shape != earlier[0].shape:
            raise ValueError(
                f"Tracker: {name} returned shape {tuple(value.shape)} at step {state.step}, and"
                f" {tuple(earlier[0].shape)} at step {self._steps[0]}; it must stay the same"
            )
        return value


def _check(name: str, function: object) -> None:
    if not callable(function):
        raise TypeError(f"Tracker: {name}={function!r} is not a function of the state")
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C, which shows no signature
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"Tracker: {name} must take one argument, the state of the fit: lambda state: ..."
        ) from error


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
