"""The bar of a benchmark that takes long, and lines above it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

from nfvi.utils import progress_bar, progress_wanted

__all__ = ["say", "with_bar"]

T = TypeVar("T")


def with_bar(
    things: Iterable[T],
    label: str,
    *,
    name: Callable[[T], object] = str,
    total: int | None = None,
    progress: bool | None = None,
) -> Iterator[T]:
    """The things, one by one, with a bar on stderr that counts those that are done.

    Args:
        things: fits to make, or what else takes long.
        label: what the bar begins with.
        name: what it shows of the one at work.
        total: how many there are; default, all are listed first and counted.
        progress: whether there is a bar; ``None`` for one in a terminal or a notebook alone.
    """
    if not progress_wanted(progress):
        yield from things
        return
    if total is None:
        things = list(things)
        total = len(things)
    with progress_bar(total, label) as bar:
        bar.leave = False  # the lines that are printed say what was done
        for thing in things:
            bar.set_postfix_str(str(name(thing)))
            yield thing
            bar.update()


def say(text: str = "") -> None:
    """Print a line on stdout at once, above the bar where there is one."""
    tqdm.write(text)
    sys.stdout.flush()
