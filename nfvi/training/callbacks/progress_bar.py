"""A progress bar with what is maximised and the length of the gradient."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nfvi.training.state import Callback, CallbackLike, Stop, TrainState
from nfvi.utils import check_whole, next_multiple, progress_bar, progress_wanted

__all__ = ["ProgressBar", "has_bar", "with_progress"]

LONGEST = 24


class ProgressBar(Callback):
    """Shows formula, step, speed, and the ELBO (nats) and gradient length of the best restart.

    A fit to data shows its log-likelihood a row (nats) in place of the ELBO. Where a step takes
    rows of data, the bar says how many a second.

    A fit has one by default in a terminal or notebook; ``progress=`` turns it on or off. One that
    is among ``callbacks=`` is shown in any case.

    Args:
        every: steps between updates of the numbers, at least 1; ELBO and log-likelihood are means
            over them.

    Raises:
        ValueError: ``every`` is not an integer of at least 1.
    """

    def __init__(self, every: int = 50) -> None:
        check_whole("every", every, 1)
        self.every = every
        self._bar: Any = None
        self._first, self._shown, self._started = 0, 0, 0.0

    def open(self, state: TrainState) -> None:
        self._first, self._started = state.step, time.perf_counter()
        self._shown = state.step
        if not state.first:
            return
        self._bar = progress_bar(state.steps - state.step, shorten(state.formula))

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        if not state.first:
            return None
        if state.step % self.every == 0 or state.step == state.steps:
            best, quantity = state.best, state.history.quantity
            mean = float(state.history.last(quantity, self.every)[:, best].nanmean())
            norm = float(state.history.last("grad_norm", 1)[0, best])
            shown = {quantity: f"{mean:.3f}", "gradient": f"{norm:.2g}", **self._speed(state)}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(state.step - self._shown)
        self._shown = state.step
        return None

    def _speed(self, state: TrainState) -> dict[str, str]:
        """Rows a second in this run, where a step takes rows."""
        if not state.rows:
            return {}
        steps, seconds = state.step - self._first, time.perf_counter() - self._started
        return {"rows/s": f"{steps * state.rows / seconds:,.0f}"}

    def close(self, state: TrainState) -> None:
        if state.first:
            self._bar.close()


def shorten(formula: str) -> str:
    """A formula in at most 24 characters."""
    return formula if len(formula) <= LONGEST else f"{formula[: LONGEST - 1]}…"


def has_bar(callbacks: Sequence[CallbackLike]) -> bool:
    """Whether a progress bar is among the callbacks."""
    return any(isinstance(callback, ProgressBar) for callback in callbacks)


def with_progress(
    callbacks: Sequence[CallbackLike], progress: bool | None
) -> tuple[CallbackLike, ...]:
    """The callbacks, and a progress bar if one is wanted and none is among them."""
    wanted = progress_wanted(progress) and not has_bar(callbacks)
    return (*callbacks, ProgressBar()) if wanted else (*callbacks,)
