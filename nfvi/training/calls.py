"""How the loop calls its callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nfvi.training.loop_state import Control
from nfvi.training.state import Callback, CallbackLike, TrainState

__all__ = ["goes_last", "groups_of", "next_look", "opened", "wants_groups"]


def goes_last(callback: CallbackLike) -> bool:
    """Whether a callback is to be called after all others."""
    return isinstance(callback, Callback) and callback.goes_last


def groups_of(callback: CallbackLike, step: int) -> int:
    """Into how many groups a callback wants the gradient of a step split; 0 for none."""
    return callback.groups(step) if isinstance(callback, Callback) else 0


def wants_groups(callbacks: Sequence[CallbackLike]) -> bool:
    """Whether some callback may ask for the gradient of a step in groups."""
    ours = [c for c in callbacks if isinstance(c, Callback)]
    return any(type(c).groups is not Callback.groups for c in ours)


def next_look(each: CallbackLike | Control, step: int) -> int:
    """The step after ``step`` after which a callback or a control must be called.

    Raises:
        ValueError: it names another.
    """
    if not isinstance(each, Callback | Control):
        return step + 1
    found = each.next_look(step)
    if not isinstance(found, int) or found <= step:
        raise ValueError(
            f"next_look({step}) of {type(each).__name__} must be a whole number above {step},"
            f" got {found!r}"
        )
    return found


@contextmanager
def opened(callbacks: Sequence[CallbackLike], state: TrainState) -> Iterator[None]:
    """Open the callbacks, and close those that were opened, also after an error."""
    ours = [c for c in callbacks if isinstance(c, Callback)]
    opened: list[Callback] = []
    try:
        for callback in ours:
            callback.open(state)
            opened.append(callback)
        yield
    finally:
        for callback in reversed(opened):
            callback.close(state)
