"""A progress bar shows where someone can see it."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest

from nfvi.utils.progress import counted, progress_bar, progress_wanted, ticking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_as_told():
    assert progress_wanted(True)
    assert not progress_wanted(False)


@pytest.mark.parametrize("progress", ["no", 1, "True"])
def test_what_is_no_answer(progress):
    with pytest.raises(ValueError, match="progress must be True, False or None, got"):
        progress_wanted(progress)


@pytest.mark.parametrize(
    ("stream", "wanted"), [(Terminal(), True), (io.StringIO(), False), (None, False)]
)
def test_by_default_in_a_terminal(monkeypatch, stream, wanted):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert progress_wanted(None) is wanted


def test_by_default_in_a_notebook(monkeypatch):
    ipython = ModuleType("IPython")
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for shell, wanted in ((SimpleNamespace(kernel=1), True), (SimpleNamespace(), False)):
        monkeypatch.setattr(ipython, "get_ipython", lambda shell=shell: shell, raising=False)
        assert progress_wanted(None) is wanted


def test_the_bar_counts(capsys):
    with progress_bar(3, "work") as bar:
        bar.update(3)
    assert "work: 100%" in capsys.readouterr().err


def test_work_that_ends_well_after_less_fills_the_bar(capsys):
    with counted(True, 4, "work") as each:
        each()
    assert "work: 100%" in capsys.readouterr().err
    with counted(False, 4, "work") as each:
        each()
    assert capsys.readouterr().err == ""


def test_an_error_ends_the_line(capsys):
    def work():
        with counted(True, 4, "work") as each:
            each()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        work()
    assert "1/4" in (err := capsys.readouterr().err) and err.endswith("\n")


def test_a_clock_appears_after_a_second_and_goes(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with ticking(True, "search") as tell:
        tell("wide draws")
        assert capsys.readouterr().err == ""
        now[0] += 1.5
        tell("12 gradients")
        shown = capsys.readouterr().err
        assert "search 00:01, 12 gradients" in shown
    # Wiped out: the last thing written is a blank line and the way back to its beginning.
    assert capsys.readouterr().err.split("\r")[-2].strip() == ""
    with ticking(False, "search") as tell:
        tell("wide draws")
    assert capsys.readouterr().err == ""
