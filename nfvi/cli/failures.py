"""How a command ends: its exit code, and failures in words."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

import typer

from nfvi.cli.wording import in_shell
from nfvi.errors import FitError, FitWarning, FormulaError, TargetError
from nfvi.utils import place_of

__all__ = ["exit_code", "failures_in_words"]

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
OWN = (FitError, FormulaError, ImportError, TargetError)
"""What says by itself where it is from."""


def exit_code(interrupted: bool) -> int:
    """The code of a command that has ended with a result, by Ctrl-C or not."""
    return INTERRUPTED if interrupted else 0


@contextmanager
def failures_in_words(*, trace: bool = False) -> Iterator[None]:
    """Turn the errors that nfvi raises on purpose into a line on stderr and an exit code.

    2 for what was asked (formula, target, numbers, files that are not there), 1 for what went wrong
    after that. An exception of the user's own function counts as the latter, and is told with its
    file and line; any other is a fault of nfvi and keeps its traceback. Warnings become lines on
    stderr as well, but for those of a fit that is not to be trusted: the verdict is printed anyway.

    Args:
        trace: whether to print the whole traceback before that line. It ends in the user's own
            function where that raised the error.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("ignore", FitWarning)
        try:
            yield
        except Exception as error:
            where = "" if isinstance(error, OWN) else place_of(error)
            if where:
                _fail(f"{type(error).__name__}: {error}{where}", error, FAILURE, trace)
            if isinstance(error, ValueError | ImportError | FileNotFoundError):
                _fail(str(error), error, USAGE, trace)
            if isinstance(error, FitError | OSError):
                _fail(str(error), error, FAILURE, trace)
            raise


def _fail(said: str, error: BaseException, code: int, trace: bool) -> NoReturn:
    if trace:
        typer.echo("".join(traceback.format_exception(error)), err=True)
    typer.echo(f"nfvi: {in_shell(said)}", err=True)
    ours = isinstance(error, FitError | TargetError) and error.__cause__ is not None
    if (ours or said != str(error)) and not trace:
        typer.echo("nfvi: --traceback shows where it was raised", err=True)
    raise typer.Exit(code) from error


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"nfvi: {in_shell(str(message))}", err=True)
