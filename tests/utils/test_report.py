"""A report is one file that loads nothing, in which text stays text."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import nfvi
from nfvi.utils import Report, Section, facts, frame, scrolled, words, write_report

EVIL = "<script>alert('&')</script>"


def made(**changes: object) -> Report:
    section = Section(EVIL, (words(EVIL), facts({EVIL: EVIL, "none": None})))
    parts = {"title": EVIL, "lead": EVIL, "details": (EVIL,), "sections": (section,), **changes}
    return Report(**parts)


def test_text_stays_text(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", made)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in page and page.count("&lt;script&gt;") == 9
    assert "<h2>Versions</h2>" in page and f"Written by nfvi {nfvi.__version__}." in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)|@import|url\(', page)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_every_section_is_in_the_contents(tmp_path: Path) -> None:
    sections = (Section("one", (words("a"),)), Section("two", (words("b"),)))
    write_report(tmp_path / "r.html", lambda: made(sections=sections))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    names = dict(re.findall(r'<a href="#(s\d)">(\w+)</a>', page))
    assert names == {"s1": "one", "s2": "two", "s3": "Versions"}
    assert dict(re.findall(r'<section id="(s\d)">\s*<h2>(\w+)</h2>', page)) == names


def test_the_colour_is_that_of_the_verdict(tmp_path: Path) -> None:
    pages = set()
    for word in ("good", "usable", "not to be trusted", ""):
        write_report(tmp_path / "r.html", partial(made, word=word))
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        pages.add(re.search(r"\.lead {[^}]*solid (\S+);", page).group(1))
    assert len(pages) == 4 and "currentColor" in pages


def test_what_cannot_be_written_leaves_the_file_before(tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_report(tmp_path / "r.html", lambda: made(title="\ud800"))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_without_jinja_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'nfvi\[plots\]'"):
        write_report(tmp_path / "r.html", made)


def test_a_long_table_is_cut() -> None:
    table = pd.DataFrame({"mean": range(5)}, index=list("abcde"))
    assert frame(table, 3).count("<tr>") == 4 and "... and 2 more" in frame(table, 3)
    assert "more" not in frame(table, 5)
    assert scrolled(["", "x"], [["a", "1"]]).startswith("<div><table")
