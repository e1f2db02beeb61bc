"""What the commands share: values of options, and failures in words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NoReturn, TextIO, TypeVar

import torch
import typer

from nfvi.errors import FitError
from nfvi.training import ADAPTIVE

__all__ = [
    *("INTERRUPTED", "can_draw", "check_word", "device_of", "dtype_of"),
    *("failures_in_words", "fractions", "number_or_auto"),
]

N = TypeVar("N", int, float)
USAGE, FAILURE, INTERRUPTED = 2, 1, 130


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Turn the errors that nfvi raises on purpose into a line on stderr and an exit code.

    2 for what was asked (formula, target, numbers, files that are not there), 1 for what went wrong
    after that. Warnings become lines on stderr as well.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (ValueError, ImportError, FileNotFoundError) as error:
            _fail(error, USAGE)
        except (FitError, OSError) as error:
            _fail(error, FAILURE)


def dtype_of(text: str | None) -> torch.dtype | None:
    """``--dtype``."""
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if text is not None and text not in dtypes:
        raise ValueError(f"--dtype takes {' or '.join(dtypes)}, got {text!r}")
    return None if text is None else dtypes[text]


def device_of(text: str | None) -> torch.device | None:
    """``--device``, if it is there."""
    if text is None:
        return None
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise ValueError(
            f"--device {text!r} is none that torch knows: cpu, cuda, cuda:1"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here")
    return device


def check_word(option: str, text: str | None, words: Sequence[str]) -> None:
    """Check that an option is one of the words that it takes on the command line."""
    if text is not None and text not in words:
        raise ValueError(f"--{option} takes {', '.join(words[:-1])} or {words[-1]}, got {text!r}")


def number_or_auto(option: str, text: str | None, kind: type[N]) -> N | Literal["auto"] | None:
    """The number that an option holds, or the word ``auto``."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return kind(text)
    except ValueError as error:
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"--{option} takes {number} or auto, got {text!r}") from error


def fractions(text: str | None) -> float | str | list[float] | None:
    """``--anneal``: 0.3 for all restarts, 0.3,0 for one each, or ``adaptive``."""
    if text is None or text == ADAPTIVE:
        return text
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            "--anneal takes a fraction such as 0.3, one for each restart as in 0.3,0, or"
            f" {ADAPTIVE}; got {text!r}"
        ) from error
    return values[0] if len(values) == 1 else values


def can_draw() -> bool:
    """Whether Matplotlib is there; a line on stderr says so if it is not."""
    try:
        import nfvi.plots  # noqa: F401
    except ImportError as error:
        typer.echo(f"nfvi: no figures, since {error}", err=True)
        return False
    return True


def _fail(error: BaseException, code: int) -> NoReturn:
    typer.echo(f"nfvi: {error}", err=True)
    raise typer.Exit(code) from error


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"nfvi: {message}", err=True)
