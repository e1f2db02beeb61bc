"""Ctrl-C during a fit: finish the step, keep what was fitted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "catch_interrupt"]


class Interruption:
    """Whether Ctrl-C was pressed."""

    requested: bool = False


@contextmanager
def catch_interrupt() -> Iterator[Interruption]:
    """Take the first SIGINT as a request to stop after the step; a second one raises at once.

    The handler that was there before is put back. Outside the main thread, where Python delivers
    no signals, nothing is changed.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interruption.requested:
            raise KeyboardInterrupt
        interruption.requested = True

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, previous)
