"""Calls, the syntax of a base: what is read and what is refused."""

from __future__ import annotations

import pytest

from nfvi.errors import FormulaError
from nfvi.flows import Option
from nfvi.formula.formula import parse_call

BASES = {"normal": {}, "studentt": {"df": Option("df", 5.0, float)}}


def test_call() -> None:
    call = parse_call(" StudentT( df = 5 ) ")
    assert (call.name, call.kwargs, str(call)) == ("studentt", {"df": 5}, "studentt(df=5)")
    assert parse_call("normal").kwargs == {}
    assert parse_call(call) is call
    assert parse_call("mixture(3,k=4)").args == (3,)
    assert str(parse_call("studentt(df=5)", known=BASES)) == "studentt(df=5.0)"


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("normal*2", 6, "expected '(' or the end, found '*'"),
        ("normal-", 6, "expected '(' or the end, found '-'"),
        ("3", 0, "expected the name of a base, found '3'"),
        ("studentt(df=", 12, "expected a value, found the end"),
        ("studentt(df=3,df=4)", 14, "option 'df' is given twice"),
        ("studentt(df=true)", 12, "df of studentt must be a number"),
        ("studentt(5)", 9, "expected name=value; studentt takes df"),
    ],
)
def test_call_refused(text: str, at: int, words: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_call(text, "base", BASES)
    assert str(caught.value) == f"{words}\n    {text}\n    {' ' * at}^"


def test_call_of_unknown_name_or_option() -> None:
    with pytest.raises(FormulaError) as caught:
        parse_call("student(df=3)", "base", BASES)
    assert str(caught.value) == (
        "no base is called 'student'; did you mean 'studentt'?\n"
        "    student(df=3)\n    ^\nbases: normal, studentt"
    )
    with pytest.raises(FormulaError) as caught:
        parse_call("studentt(dfs=3)", "base", BASES)
    assert str(caught.value) == (
        "studentt has no option 'dfs'; did you mean 'df'?\n"
        "    studentt(dfs=3)\n             ^\nstudentt takes df"
    )
    with pytest.raises(FormulaError, match="the base is empty\n"):
        parse_call(" ")
    with pytest.raises(FormulaError, match="a base is a string, not int"):
        parse_call(3)  # type: ignore[arg-type]


def test_call_can_be_refused_later_at_one_of_its_options() -> None:
    call = parse_call("mixture( 2, k=4, a=[1,2] )")
    assert str(call.wrong("no", "k")) == f"no\n    mixture(2,a=[1,2],k=4)\n    {' ' * 18}^"
    assert str(call.wrong("no")) == "no\n    mixture(2,a=[1,2],k=4)\n    ^"
