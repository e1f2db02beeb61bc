"""When to show a progress bar, and the bar."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["progress_bar", "progress_wanted"]


def progress_wanted(progress: bool | None) -> bool:
    """Whether to show a bar: as told, or, for ``None``, in a terminal or a notebook only."""
    if progress is not None:
        return bool(progress)
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def progress_bar(total: int, label: str) -> Any:
    """A ``tqdm`` bar that fits the place; a context manager with ``update`` and ``set_postfix``."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=label)
