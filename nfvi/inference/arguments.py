"""The arguments of NFVI.fit and NFVI.fit_data as records, before any default is filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from nfvi.inference.init import Init
from nfvi.training import Anneal, CallbackLike, Compile, OptimizerSpec

__all__ = ["DataArguments", "FitArguments", "check_callbacks"]


@dataclass(frozen=True, eq=False)
class FitArguments:
    """What says how a target is fitted, see :meth:`nfvi.NFVI.fit`; ``None`` for a default.

    The order of the fields is the one in which they are refused where they cannot be taken.
    """

    init: Init = None
    steps: int | Literal["auto"] | None = None
    n_mc: int | Literal["auto"] | None = None
    restarts: int | None = None
    combine: Literal["best", "mixture"] | None = None
    prune: bool | None = None
    anneal: Anneal = None
    lr: float | Literal["auto"] | None = None
    hold: float | None = None
    draws: Literal["iid", "qmc"] | None = None
    gradient: Literal["path", "total"] | None = None
    optimizer: OptimizerSpec = None
    compile: Compile = "trace"

    def given(self) -> list[str]:
        """The names of those that are set, but ``compile``, which changes no result."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return [n for n, value in values.items() if n != "compile" and value is not None]


@dataclass(frozen=True, eq=False)
class DataArguments:
    """What says how data are fitted, see :meth:`nfvi.NFVI.fit_data`."""

    validation: Any
    standardize: bool
    batch_size: int | None
    epochs: int | None
    patience: int | None
    lr: float | None
    optimizer: OptimizerSpec
    compile: Compile = "trace"

    def given(self) -> list[str]:
        """The names of those that are set, of all that a checkpoint fixes in any case."""
        names = ("batch_size", "epochs", "patience", "lr")
        return [name for name in names if getattr(self, name) is not None]


def check_callbacks(callbacks: Sequence[CallbackLike]) -> None:
    """Check that callbacks are a list of what can be called after a step.

    Raises:
        TypeError: they are not.
    """
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks= must be a list of callbacks, got {callbacks!r}")
    for callback in callbacks:
        if not callable(callback) or isinstance(callback, type):
            raise TypeError(
                f"callbacks= must hold functions of the state or callback objects, got {callback!r}"
            )
