"""Where in the user's own code an error was raised."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["place_of"]

NFVI = Path(__file__).resolve().parents[1]
LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)


def place_of(error: BaseException, fn: Callable[..., Any] | None = None) -> str:
    """The file and line, as in `` (model.py, line 12)``; empty where none is the user's.

    That is the innermost call in the file of the user's function; where there is none, the
    innermost outside of nfvi, of installed packages and of Python's own. What called nfvi, such as
    a script, does not count.

    Args:
        error: what was raised.
        fn: the user's function, where it is known.
    """
    frames = traceback.extract_tb(error.__traceback__)
    code = None if fn is None else getattr(inspect.unwrap(fn), "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    first = next((i for i, frame in enumerate(frames) if _is_in(frame.filename, NFVI)), 0)
    own = own or [frame for frame in frames[first:] if _is_the_users(frame.filename)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _is_the_users(filename: str) -> bool:
    if filename.startswith("<"):
        return filename.startswith("<ipython-input")
    return not any(_is_in(filename, folder) for folder in (NFVI, *LIBRARIES))


def _is_in(filename: str, folder: Path) -> bool:
    return not filename.startswith("<") and Path(filename).resolve().is_relative_to(folder)
