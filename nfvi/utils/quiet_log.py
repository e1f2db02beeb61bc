"""Keeping what another library logs off the screen of who has no logging of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_log"]


@contextmanager
def quiet_log(name: str, level: int) -> Iterator[None]:
    """Leave out what the logger of a name says up to a level, as long as it is entered."""
    log = logging.getLogger(name)

    def above(record: logging.LogRecord) -> bool:
        return record.levelno > level

    log.addFilter(above)
    try:
        yield
    finally:
        log.removeFilter(above)
