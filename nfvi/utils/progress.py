"""When to show a progress bar, and the bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed

__all__ = ["counted", "progress_bar", "progress_wanted", "stage_bar", "ticking"]

CLOCK = "{desc} {elapsed}{postfix}"


def progress_wanted(progress: bool | None) -> bool:
    """Whether to show a bar: as told, or, for ``None``, in a terminal or a notebook only.

    Of the processes of a group, the first one shows it.

    Raises:
        ValueError: ``progress`` is neither.
    """
    if progress is not None:
        if not isinstance(progress, bool):
            raise ValueError(f"progress must be True, False or None, got {progress!r}")
        return progress
    return _first() and (_in_notebook() or (sys.stderr is not None and sys.stderr.isatty()))


def _first() -> bool:
    """Whether this process is the first of its group, or has none."""
    there = distributed.is_available() and distributed.is_initialized()
    return not there or distributed.get_rank() == 0


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def progress_bar(total: int, label: str) -> Any:
    """A ``tqdm`` bar that fits the place; a context manager with ``update`` and ``set_postfix``."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=label)


@contextmanager
def counted(progress: bool | None, total: int, label: str) -> Iterator[Callable[[], Any]]:
    """What to call after each of so many things, with a bar behind it where one is wanted.

    Work that ends well after fewer fills the bar.
    """
    if not progress_wanted(progress):
        yield lambda: None
        return
    with progress_bar(total, label) as bar:
        yield bar.update
        bar.total = bar.n
        bar.refresh()


@contextmanager
def ticking(progress: bool | None, label: str) -> Iterator[Callable[[str], Any]]:
    """What to call with words from time to time in work of unknown length, for a line with a clock.

    The line appears after a second, and goes when the work ends.
    """
    if not progress_wanted(progress):
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(desc=label, bar_format=CLOCK, delay=1.0, leave=False) as bar:

        def tell(words: str) -> None:
            bar.set_postfix_str(words, refresh=False)
            bar.update(0)

        yield tell


def stage_bar(label: str, limited: bool) -> Any:
    """A ``tqdm`` bar for work in stages, whose ``n`` goes to 1 where a limit is known.

    Args:
        label: what it begins with.
        limited: whether there is a limit.
    """
    from tqdm.auto import tqdm

    form = "{desc} |{bar}| {elapsed}{postfix}" if limited else CLOCK
    return tqdm(total=1.0 if limited else None, desc=label, bar_format=form)
