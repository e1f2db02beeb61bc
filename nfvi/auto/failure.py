"""The error of a climb that a target broke off, with the best guide till then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from nfvi.errors import FitError, TargetError
from nfvi.fit import Rung
from nfvi.utils import place_of

__all__ = ["broken_off", "carries_best", "is_late"]

P = ParamSpec("P")
T = TypeVar("T")


class Tried(Protocol):
    """What a record says of the guides that were tried."""

    @property
    def rungs(self) -> Sequence[Rung]:
        """All of them."""

    @property
    def best_rung(self) -> Rung:
        """The best, where there is one."""


R = TypeVar("R", bound=Tried)


def is_late(error: BaseException) -> bool:
    """Whether it tells of an exception, such as the target's, that ended a fit."""
    late = isinstance(error, FitError | TargetError)
    return late and error.__cause__ is not None and not isinstance(error.__cause__, FitError)


def broken_off(record: Tried, error: BaseException) -> FitError | TargetError:
    """The error for a climb that this one ended; ``guide`` is that of the best rung, if any.

    Args:
        record: of the climb.
        error: what was raised, or the error of the run that it ended.
    """
    cause = error.__cause__ if is_late(error) and error.__cause__ is not None else error
    kind = TargetError if isinstance(cause, TargetError) else FitError
    raised = f"{type(cause).__name__}: {cause}{place_of(cause)}"
    what = str(cause) if kind is TargetError else raised
    guide: Any = None
    left = "there was no guide yet"
    if record.rungs:
        guide = record.best_rung.guide
        left = f"error.guide is the best of {len(record.rungs)}, {record.best_rung}"
    return kind(f'NFVI("auto") was broken off by its target. {what} ({left})', guide)


def carries_best(function: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """A step of a climb outside of runs, whose first argument is the record.

    What it raises, but for errors of a fit, comes out as of :func:`broken_off`.
    """

    @wraps(function)
    def step(record: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(record, *args, **kwargs)
        except FitError:
            raise
        except Exception as error:
            raise broken_off(record, error) from error

    return step
