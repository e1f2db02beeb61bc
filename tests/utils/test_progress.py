"""A progress bar shows where someone can see it."""

from __future__ import annotations

import io
import sys
from types import ModuleType

import pytest

from nfvi.utils.progress import progress_bar, progress_wanted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_as_told():
    assert progress_wanted(True)
    assert not progress_wanted(False)


@pytest.mark.parametrize(
    ("stream", "wanted"), [(Terminal(), True), (io.StringIO(), False), (None, False)]
)
def test_by_default_in_a_terminal(monkeypatch, stream, wanted):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert progress_wanted(None) is wanted


def test_by_default_in_a_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress_wanted(None)


def test_the_bar_counts(capsys):
    with progress_bar(3, "work") as bar:
        bar.update(3)
    assert "work: 100%" in capsys.readouterr().err
