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

    The handler that was there before is put back. Nothing is changed outside the main thread,
    where Python delivers no signals, and in a process that ignores SIGINT, as one started with
    ``&`` does, or that handles it outside Python.
    """
    interruption = Interruption()
    previous = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or previous in (signal.SIG_IGN, None):
        yield interruption
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interruption.requested:
            raise KeyboardInterrupt
        interruption.requested = True

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, previous)
