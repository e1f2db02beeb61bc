"""The text and the caret in an error, whatever the text holds."""

from __future__ import annotations

import pytest

from nfvi.errors import FormulaError
from nfvi.formula.formula import Formula
from nfvi.formula.grammar import MAX_LENGTH
from nfvi.utils.caret import caret, character, choice, nearest, quote


def refusal(text: str) -> str:
    with pytest.raises(FormulaError) as caught:
        Formula.parse(text)
    return str(caught.value)


def test_error_in_four_lines() -> None:
    error = caret("planer*8", 7, "words", "note")
    assert type(error) is FormulaError
    assert str(error) == "words\n    planer*8\n           ^\nnote"
    assert str(caret("", 0, "words")) == "words\n\n    ^"


def test_pieces_of_a_message() -> None:
    assert quote("x" * 30) == f"'{'x' * 30}'"
    assert quote("x" * 31) == f"'{'x' * 27}...'"
    assert choice(["a"]) == "a"
    assert choice(["a", "b", "c"]) == "a, b or c"
    assert character("+") == "'+'"
    assert character("\u00d7") == "'\u00d7' (MULTIPLICATION SIGN)"
    assert nearest("plannar", ["loc", "planar"]) == "; did you mean 'planar'?"
    assert nearest("loc12", ["loc", "planar"]) == "; did you mean 'loc*12'?"
    assert nearest("zzz", ["loc", "planar"]) == ""


def test_long_text_is_cut_around_the_caret() -> None:
    text = "planar-" * 100 + "planer" + "-loc" * 100
    lines = refusal(text).split("\n")
    assert lines[1] == "    ...r-planar-planar-planar-planar-planer-loc-loc-loc-loc-loc-loc..."
    assert lines[1][lines[2].index("^") :].startswith("planer-loc")


@pytest.mark.parametrize(
    ("text", "shown", "at", "found"),
    [
        ("planar\x00*8", "planar?*8", 6, "the character U+0000"),
        ("planar\x1b[31m", "planar?[31m", 6, "the character U+001B"),
        ("planar\ud800", "planar?", 6, "the character U+D800"),
        ("planar\u202eloc", "planar?loc", 6, "RIGHT-TO-LEFT OVERRIDE"),
        ("planar\u0301", "planar?", 6, "COMBINING ACUTE ACCENT"),
        ("planar\n-\r\n-loc", "planar -  -loc", 10, "'-'"),
    ],
)
def test_what_cannot_be_printed_is_shown_safely(text: str, shown: str, at: int, found: str) -> None:
    lines = refusal(text).split("\n")
    assert lines[0].endswith(f"found {found}")
    assert lines[1:] == [f"    {shown}", f"    {' ' * at}^"]


def test_caret_counts_the_columns_of_wide_characters() -> None:
    # The text after the limit of length is not read, so wide characters may stand before a caret.
    text = "全" * MAX_LENGTH + "x"
    _, shown, pointer = refusal(text).split("\n")
    before = shown.index("x")
    assert pointer.index("^") == before + shown[:before].count("全")
