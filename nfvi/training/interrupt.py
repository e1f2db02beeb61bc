"""Ctrl-C during a fit: finish the step, keep what was fitted."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import distributed

__all__ = ["Interruption", "catch_interrupt", "hold_interrupt", "interrupt_once", "raise_once"]

ECHO = 5.0
"""Seconds after a first SIGINT in which torchrun hands Ctrl-C in a terminal on, a second time."""


class Interruption:
    """Whether Ctrl-C was pressed."""

    requested: bool = False


@contextmanager
def catch_interrupt() -> Iterator[Interruption]:
    """Take the first SIGINT as a request to stop after the step; a second one raises at once.

    The handler that was there before is put back. Nothing is changed outside the main thread,
    where Python delivers no signals, and in a process that ignores SIGINT, as one started with
    ``&`` does, or that handles it outside Python. In a process that torchrun started, a second one
    within 5 seconds is that which torchrun sends after Ctrl-C in a terminal, and does nothing.
    """
    interruption = Interruption()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if _is_echo():
            return
        _Last.pressed = time.monotonic()
        if interruption.requested:
            raise KeyboardInterrupt
        interruption.requested = True

    with _handled(on_interrupt):
        yield interruption


@contextmanager
def hold_interrupt() -> Iterator[Interruption]:
    """Hold SIGINT back while processes talk to one another, and hand it on after the block."""
    interruption = Interruption()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        interruption.requested = True

    with _handled(on_interrupt):
        yield interruption
    if interruption.requested:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def interrupt_once() -> Iterator[None]:
    """For work of several processes: Ctrl-C is raised, but what torchrun sends after it is not."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if not _is_echo():
            _Last.pressed = time.monotonic()
            raise KeyboardInterrupt

    with _handled(on_interrupt):
        yield


def raise_once() -> None:
    """Act as if Ctrl-C had been pressed, unless it just was: another process has seen it too."""
    if time.monotonic() - _Last.pressed < ECHO:
        return
    if threading.current_thread() is not threading.main_thread():
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


class _Last:
    """When Ctrl-C was pressed last in a fit, by the clock of ``time.monotonic``."""

    pressed = -math.inf


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    previous = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or previous in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _is_echo() -> bool:
    launched = distributed.is_available() and distributed.is_torchelastic_launched()
    return launched and time.monotonic() - _Last.pressed < ECHO
