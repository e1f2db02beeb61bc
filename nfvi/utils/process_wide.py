"""A lock on what a process has one of: Pyro's handler stack and settings, torch's random state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from pyro.poutine.runtime import _PYRO_STACK

__all__ = ["process_wide", "unvalidated"]

_LOCK = threading.RLock()


@contextmanager
def process_wide() -> Iterator[None]:
    """Hold Pyro's handler stack and the global random state for one thread.

    Whatever runs a Pyro model, samples by Pyro, or seeds the global generators does so in here, so
    that threads take turns. A thread may enter again. An error leaves the handler stack as it was.
    """
    with _LOCK:
        before = list(_PYRO_STACK)
        try:
            yield
        finally:
            _PYRO_STACK[:] = before


@contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions of torch and Pyro do not check their values, as long as it is entered.

    To check a value is to read it, and a trace cannot hold what depends on a number that is read.
    Outside of a support there is NaN then, and no error.
    """
    with process_wide(), pyro.validation_enabled(False):
        yield
