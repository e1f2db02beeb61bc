"""Which line of a traceback is the user's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nfvi.utils import check_whole, place_of


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises((ValueError, ArithmeticError)) as caught:
        function()
    return caught.value


def test_the_innermost_line_outside_of_libraries() -> None:
    def broken() -> None:
        json.loads("{")  # raises in a file of Python's own

    line = broken.__code__.co_firstlineno + 1
    assert place_of(raised(lambda: broken())) == f" (test_user_code.py, line {line})"


def test_the_file_of_the_function_comes_first(tmp_path: Path, monkeypatch) -> None:
    """A helper in another file may be a library that is not installed."""
    (tmp_path / "helper_of_user_code.py").write_text("def fail():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    helper = importlib.import_module("helper_of_user_code")

    def model() -> float:
        return helper.fail()

    error = raised(model)
    assert place_of(error) == " (helper_of_user_code.py, line 2)"
    line = model.__code__.co_firstlineno + 1
    assert place_of(error, model) == f" (test_user_code.py, line {line})"


def test_what_was_never_raised_has_none() -> None:
    assert place_of(ValueError("never raised")) == ""


def test_what_called_nfvi_does_not_count() -> None:
    """Only its own function is the user's: here there is none, but this file that called."""
    error = raised(lambda: check_whole("n", 0, 1))
    assert place_of(error) == ""
