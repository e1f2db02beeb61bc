"""The formula language: what is read, what is written back, what is refused and how."""

from __future__ import annotations

import doctest
import pickle
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nfvi.errors import FormulaError
from nfvi.flows import Flow, Option, registry
from nfvi.flows.call import Call
from nfvi.formula.formula import MAX_FLOWS, Formula, parse_call
from nfvi.formula.grammar import MAX_DEPTH, MAX_LENGTH

BASES = {"normal": {}, "studentt": {"df": Option("df", 5.0, float)}}


class Toy(Flow):
    """A flow with an option of every kind; what it was built with is kept for the tests."""

    min_dim = 2

    def __init__(
        self,
        dim: int,
        *,
        hidden: list[int] = [8],  # noqa: B006
        activation: str = "tanh",
        bins: int = 8,
        bound: float = 3.0,
        gate: bool = True,
        features: str | Call = "none",
        **common: Any,
    ) -> None:
        super().__init__(dim, **common)
        if bins < 2:
            raise ValueError(f"bins={bins}: a toy needs at least 2")
        self.common = common
        self.given = (hidden, activation, bins, bound, gate, features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z, z.new_zeros(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """The toy flow and its alias are in the registry for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
        patch.setattr(registry, "_ALIASES", dict(registry._ALIASES))
        registry.register("toy", help="a toy", aliases=("plaything",))(Toy)
        yield


def refusal(text: Any) -> str:
    """The message of the one error that a text gives."""
    with pytest.raises(FormulaError) as caught:
        Formula.parse(text)
    assert caught.type is FormulaError
    return str(caught.value)


def pickled(formula: Formula) -> Any:
    return pickle.loads(pickle.dumps(formula))


def names_of(text: str) -> list[str]:
    return [call.name for call in Formula.parse(text)]


# What is read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("planar", ["planar"]),
        ("scale-loc", ["scale", "loc"]),
        ("planar*3", ["planar"] * 3),
        ("scale-hh*10-loc", ["scale", *["hh"] * 10, "loc"]),
        ("scale-hh*100-loc", ["scale", *["hh"] * 100, "loc"]),
        ("planar*8", ["planar"] * 8),
        ("planar*4-radial*3", ["planar"] * 4 + ["radial"] * 3),
        ("planar-radial-planar", ["planar", "radial", "planar"]),
        (" Planar * 2\n- LOC\t", ["planar", "planar", "loc"]),
        ("planar*08", ["planar"] * 8),
        ("(planar*2-radial)*3", ["planar", "planar", "radial"] * 3),
        ("loc-((planar-hh)*2-scale)*2", ["loc", *["planar", "hh", "planar", "hh", "scale"] * 2]),
        ("plaything*2", ["toy", "toy"]),
    ],
)
def test_flows_in_the_order_in_which_they_are_applied(text: str, expected: list[str]) -> None:
    assert names_of(text) == expected
    assert len(Formula.parse(text)) == len(expected)
    assert list(Formula.parse(text)) == list(Formula.parse(text).layers)


def test_every_kind_of_option_value() -> None:
    formula = Formula.parse(
        "TOY(Hidden=[64, 32], activation=Silu, bins=+12, bound=-1.5e-3, gate=FALSE,"
        " features=fourier(8, scale=[.5, true], inner=f(k=2)))"
    )
    inner = Call("fourier", (("inner", Call("f", (("k", 2),))), ("scale", (0.5, True))), (8,))
    assert formula.layers == (
        Call(
            "toy",
            (
                ("activation", "silu"),
                ("bins", 12),
                ("bound", -0.0015),
                ("features", inner),
                ("gate", False),
                ("hidden", (64, 32)),
            ),
        ),
    )
    kwargs = formula.layers[0].kwargs
    assert kwargs["hidden"] == [64, 32]
    assert type(kwargs["hidden"]) is list
    assert kwargs["features"].kwargs["scale"] == [0.5, True]


def test_an_integer_is_read_as_float_where_the_option_is_one() -> None:
    value = Formula.parse("toy(bound=3)").layers[0].kwargs["bound"]
    assert (value, type(value)) == (3.0, float)
    assert Formula.parse("toy(bound=3)") == Formula.parse("toy(bound=3.0)")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Planar * 8 - LOC", "planar*8-loc"),
        ("planar*1", "planar"),
        ("planar*007", "planar*7"),
        ("(planar)*3", "planar*3"),
        ("((planar-loc))", "planar-loc"),
        ("scale-(planar-loc)*1-hh", "scale-planar-loc-hh"),
        ("(planar*2)*3", "(planar*2)*3"),
        ("((planar-loc)*2)*3", "((planar-loc)*2)*3"),
        ("planar()", "planar"),
        ("plaything( hidden=[] )*2", "toy(hidden=[])*2"),
        ("toy(gate=True,bins=4)", "toy(bins=4,gate=true)"),
        ("toy(features=fourier())", "toy(features=fourier)"),
        ("toy(bound=1e3)", "toy(bound=1000.0)"),
        ("toy(bound=1e-7)", "toy(bound=1e-07)"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    formula = Formula.parse(text)
    assert str(formula) == canonical
    assert Formula.parse(canonical) == formula
    assert repr(formula) == f"Formula.parse('{canonical}')"


def test_a_formula_is_a_value() -> None:
    formula = Formula.parse("(toy(hidden=[4],features=fourier(k=2))*2-loc)*2")
    same = Formula.parse("( Plaything(features=fourier(k=2), hidden=[4]) * 2 - loc ) * 2")
    assert formula == same
    assert hash(formula) == hash(same)
    copy = pickled(formula)
    assert copy == formula
    assert copy.layers == formula.layers
    assert Formula.parse(formula) is formula
    assert len({formula, same, copy, Formula.parse("loc")}) == 2
    assert formula != str(formula)
    with pytest.raises(AttributeError):
        formula.parts = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("planar*2", "planar-planar"),
        ("planar-loc", "loc-planar"),
        ("toy(features=fourier(1))", "toy(features=fourier(true))"),
        ("toy(features=fourier(1))", "toy(features=fourier(1.0))"),
        ("toy(features=fourier(k))", "toy(features=fourier(k=k))"),
    ],
)
def test_different_texts_are_different_formulas(one: str, other: str) -> None:
    assert Formula.parse(one) != Formula.parse(other)


def test_the_constructor_points_to_parse() -> None:
    with pytest.raises(TypeError, match=r"Formula\.parse"):
        Formula("planar*8")  # type: ignore[arg-type]


# Properties

_NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
_VALUES = st.recursive(
    _NUMBERS.map(repr) | _NAMES | st.sampled_from(["true", "False"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]")
        | st.tuples(_NAMES, st.lists(inner, max_size=2)).map(lambda c: f"{c[0]}({','.join(c[1])})")
        | st.tuples(_NAMES, _NAMES, inner).map(lambda c: f"{c[0]}({c[1]}={c[2]})")
    ),
    max_leaves=5,
)
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "hidden": st.lists(st.integers(1, 512), max_size=3).map(str),
        "activation": _NAMES.filter(lambda name: name not in ("true", "false")),
        "bins": st.integers(2, 10**20).map(str),
        "bound": _NUMBERS.map(repr),
        "gate": st.sampled_from(["true", "false"]),
        "features": _VALUES,
    },
)
_Written = tuple[list[str], list[str]]
"""A formula in pieces, between which blanks may stand, and the names of its flows in order."""


def _flow(name: str) -> st.SearchStrategy[_Written]:
    return st.just(([name], [name]))


def _toy(options: dict[str, str]) -> _Written:
    pieces = ["toy"]
    for i, (key, value) in enumerate(options.items()):
        pieces += ["," if i else "(", key, "=", value]
    return pieces + [")"] * bool(options), ["toy"]


def _repeated(item: tuple[_Written, int | None]) -> _Written:
    (pieces, flows), count = item
    return (pieces, flows) if count is None else ([*pieces, "*", str(count)], flows * count)


def _joined(items: list[_Written]) -> _Written:
    pieces = [piece for item in items for piece in ("-", *item[0])][1:]
    return pieces, [flow for item in items for flow in item[1]]


def _sequence(items: st.SearchStrategy[_Written]) -> st.SearchStrategy[_Written]:
    counted = st.tuples(items, st.none() | st.integers(1, 4)).map(_repeated)
    return st.lists(counted, min_size=1, max_size=4).map(_joined)


_FLOWS = st.sampled_from(["loc", "scale", "hh", "planar", "radial"]).flatmap(_flow)
_FORMULAS = st.recursive(
    _sequence(_FLOWS | _OPTIONS.map(_toy)),
    lambda inner: _sequence(_FLOWS | inner.map(lambda w: (["(", *w[0], ")"], w[1]))),
    max_leaves=4,
)
_BLANKS = st.lists(st.sampled_from(["", "", " ", "\n\t"]), min_size=1, max_size=5)


@given(_FORMULAS)
def test_parse_undoes_str(written: _Written) -> None:
    pieces, flows = written
    formula = Formula.parse("".join(pieces))
    again = Formula.parse(str(formula))
    assert again == formula
    assert again.parts == formula.parts
    assert hash(again) == hash(formula)
    assert str(again) == str(formula)
    assert [call.name for call in formula] == flows
    assert len(formula) == len(flows)
    assert pickled(formula) == formula


@given(_FORMULAS, _BLANKS, st.booleans())
def test_blanks_and_case_do_not_matter(written: _Written, blanks: list[str], upper: bool) -> None:
    pieces = written[0]
    spaced = "".join(blanks[i % len(blanks)] + piece for i, piece in enumerate(pieces))
    assert Formula.parse(spaced.upper() if upper else spaced) == Formula.parse("".join(pieces))


def _read(text: str) -> Formula | FormulaError:
    try:
        return Formula.parse(text)
    except FormulaError as error:
        return error


def _formula_or_refusal(text: str) -> None:
    result = _read(text)
    if isinstance(result, Formula):
        assert Formula.parse(str(result)) == result
        return
    assert type(result) is FormulaError
    _, shown, pointer, *note = str(result).split("\n")
    assert len(note) <= 1
    assert shown.isprintable()
    assert len(shown) <= 4 + 60 + 6
    assert pointer.strip() == "^"
    assert str(result).encode()


@given(
    st.text()
    | st.text("planrhsco*-()[]=,.0123456789 \n٣", max_size=40)
    | st.binary().map(lambda b: b.decode("latin-1"))
    | st.binary().map(lambda b: b.decode("utf-8", "surrogateescape"))
)
def test_any_text_is_a_formula_or_refused(text: str) -> None:
    _formula_or_refusal(text)


@given(_FORMULAS, st.data())
def test_a_slip_of_the_pen_is_a_formula_or_refused(written: _Written, data: st.DataObject) -> None:
    text = "".join(written[0])
    at = data.draw(st.integers(0, len(text)))
    inserted = data.draw(st.sampled_from([*"*-()[]=,.0123x \0²٣", ""]))
    dropped = data.draw(st.integers(0, 2))
    _formula_or_refusal(text[:at] + inserted + text[at + dropped :])


# What is refused: the text, the place of the caret, the words

SYNTAX = [
    ("planar*", 7, "expected a count (a whole number from 1), found the end"),
    ("planar* \n", 7, "expected a count (a whole number from 1), found the end"),
    ("planar**2", 7, "expected a count (a whole number from 1), found '*'"),
    ("planar*0", 7, "expected a count (a whole number from 1), found '0'"),
    ("planar*000", 7, "expected a count (a whole number from 1), found '000'"),
    ("planar*2.5", 7, "expected a count (a whole number from 1), found '2.5'"),
    ("planar*2.", 7, "expected a count (a whole number from 1), found '2.'"),
    ("planar*1e3", 7, "expected a count (a whole number from 1), found '1e3'"),
    ("planar*-1", 7, "expected a count (a whole number from 1), found '-1'"),
    ("planar*+2", 7, "expected a count (a whole number from 1), found '+2'"),
    ("planar*loc", 7, "expected a count (a whole number from 1), found 'loc'"),
    (
        "planar*٣",
        7,
        "expected a count (a whole number from 1), found '٣' (ARABIC-INDIC DIGIT THREE)",
    ),
    ("planar*²", 7, "expected a count (a whole number from 1), found '²' (SUPERSCRIPT TWO)"),
    (
        "2*planar",
        0,
        "expected a flow or '(', found '2'; a count comes after its flow, as in planar*2",
    ),
    (
        "loc-(2*planar)",
        5,
        "expected a flow or '(', found '2'; a count comes after its flow, as in planar*2",
    ),
    (
        "planar 8",
        7,
        "expected '-', '*', '(' or the end, found '8'; "
        "a count comes after its flow, as in planar*2",
    ),
    ("-planar", 0, "expected a flow or '(', found '-'"),
    ("planar-", 7, "expected a flow or '(', found the end"),
    ("planar--loc", 7, "expected a flow or '(', found '-'"),
    ("*", 0, "expected a flow or '(', found '*'"),
    ("()", 1, "expected a flow or '(', found ')'"),
    ("(planar-loc", 11, "expected ')', found the end"),
    ("(planar", 7, "expected ')', found the end"),
    ("planar)", 6, "expected '-', '*', '(' or the end, found ')'; no '(' is open"),
    ("(planar*2))", 10, "expected '-', '*' or the end, found ')'; no '(' is open"),
    ("planar loc", 7, "expected '-', '*', '(' or the end, found 'loc'"),
    ("planar*2*3", 8, "expected '-' or the end, found '*'"),
    ("planar–loc", 6, "expected '-', '*', '(' or the end, found '–' (EN DASH)"),
    (
        "pl\u0430nar",
        2,
        "expected '-', '*', '(' or the end, found '\u0430' (CYRILLIC SMALL LETTER A)",
    ),
    ("planar\u212a", 6, "expected '-', '*', '(' or the end, found '\u212a' (KELVIN SIGN)"),
    ("toy(", 4, "expected an option (name=value) or ')', found the end"),
    ("toy(bins", 8, "expected '=' or ')', found the end"),
    ("toy(bins=", 9, "expected a value, found the end"),
    ("toy(bins=8", 10, "expected ')', found the end"),
    ("toy(bins=8,)", 11, "expected an option (name=value), found ')'"),
    ("toy(bins 8)", 9, "expected '=', ',', '(' or ')', found '8'"),
    ("toy(hidden=[", 12, "expected a value or ']', found the end"),
    ("toy(hidden=[64", 14, "expected ']', found the end"),
    ("toy(hidden=[64,)", 15, "expected a value, found ')'"),
    ("toy(hidden=[64)", 14, "expected ',' or ']', found ')'"),
    ("toy(hidden=[2,4],hidden=3)", 17, "option 'hidden' is given twice"),
    ("toy(features=f(k=1,K=2))", 19, "option 'k' is given twice"),
    ("toy(features=f(k=1,2))", 19, "values without a name come before the options"),
    ("toy(bound=-1e999)", 10, "the number '-1e999' is out of range"),
    ("toy(hidden=8)", 11, "hidden of toy must be a list such as [64,64]"),
    ("toy(bins=8.0)", 9, "bins of toy must be a whole number"),
    ("toy(bins=true)", 9, "bins of toy must be a whole number"),
    ("toy(bound=true)", 10, "bound of toy must be a number"),
    ("toy( gate = 1 )", 12, "gate of toy must be true or false"),
    ("loc-toy(activation=[tanh])", 19, "activation of toy must be a name"),
]


@pytest.mark.parametrize(("text", "at", "words"), SYNTAX)
def test_error_shows_the_place_and_says_what_was_expected(text: str, at: int, words: str) -> None:
    shown = text.rstrip()
    assert refusal(text) == f"{words}\n    {shown}\n    {' ' * at}^"


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("planer*8", 0, "no flow is called 'planer'; did you mean 'planar'?"),
        ("loc-(Raidal*2)", 5, "no flow is called 'raidal'; did you mean 'radial'?"),
        ("loc-planar8", 4, "no flow is called 'planar8'; did you mean 'planar*8'?"),
        ("loc-maff(bins=3)", 4, "no flow is called 'maff'; did you mean 'maf'?"),
        ("loc-quux(bins=3)", 4, "no flow is called 'quux'"),
        ("x" * 40, 0, f"no flow is called '{'x' * 27}...'"),
        ("loc-auto*2", 4, "no flow is called 'auto'; it is a whole formula, by itself"),
    ],
)
def test_unknown_flow_names_the_nearest_and_lists_all(text: str, at: int, words: str) -> None:
    message, shown, pointer, flows = refusal(text).split("\n")
    assert message == words
    assert (shown, pointer) == (f"    {text}", f"    {' ' * at}^")
    assert flows == f"flows: {', '.join(registry.names())}"
    assert {"planar", "loc", "toy", "plaything"} <= set(flows[7:].split(", "))


@pytest.mark.parametrize(
    ("text", "at", "words", "takes"),
    [
        (
            "loc-toy(hiden=3)",
            8,
            "toy has no option 'hiden'; did you mean 'hidden'?",
            "toy takes hidden, activation, bins, bound, gate, features",
        ),
        ("planar(hidden=[3])", 7, "planar has no option 'hidden'", "planar takes no options"),
    ],
)
def test_unknown_option_names_the_nearest_and_lists_all(
    text: str, at: int, words: str, takes: str
) -> None:
    assert refusal(text) == f"{words}\n    {text}\n    {' ' * at}^\n{takes}"


def test_option_without_a_name_lists_the_options() -> None:
    message = refusal("toy(64)")
    assert message.startswith("expected name=value; toy takes hidden, activation, bins, ")
    assert message.endswith("\n    toy(64)\n        ^")


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_formula(text: str) -> None:
    assert refusal(text) == "the formula is empty; the simplest useful one is scale-loc\n\n    ^"


@pytest.mark.parametrize("text", [None, 3, b"planar", ["planar"]])
def test_formula_of_another_type(text: Any) -> None:
    assert refusal(text) == f"a formula is a string, not {type(text).__name__}"


# Bounds

TOO_MANY = f"too many flows: a formula holds at most {MAX_FLOWS}"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (f"planar*{MAX_FLOWS + 1}", 7),
        ("planar*10000000", 7),
        (f"loc-planar*{MAX_FLOWS}", 11),
        (f"planar*{MAX_FLOWS}-loc", 13),
        (f"(planar*100-loc)*{MAX_FLOWS // 100}", 17),
        ("((((planar*99)*99)*99)*99)*99", 19),
    ],
)
def test_too_many_flows(text: str, at: int) -> None:
    assert refusal(text) == f"{TOO_MANY}\n    {text}\n    {' ' * at}^"


def test_as_many_flows_as_allowed() -> None:
    assert len(Formula.parse(f"planar*{MAX_FLOWS}")) == MAX_FLOWS
    assert len(Formula.parse(f"(planar*99-loc)*{MAX_FLOWS // 100}")) == MAX_FLOWS


def test_too_many_flows_cost_no_memory() -> None:
    texts = ["planar*10000000", "((((planar*99)*99)*99)*99)*99", f"planar*{'9' * 9000}"]
    texts.append("(" * MAX_DEPTH + "planar*9" + ")*9" * MAX_DEPTH)
    for text in texts:
        tracemalloc.start()
        try:
            assert refusal(text).startswith(TOO_MANY)
            # One object a flow would take 80 MB for the first alone.
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()


def test_deep_nesting() -> None:
    deepest = "(" * MAX_DEPTH + "planar-loc" + ")*1" * MAX_DEPTH
    assert str(Formula.parse(deepest)) == "planar-loc"
    too_deep = f"brackets may be nested {MAX_DEPTH} deep, not deeper\n"
    for text in (f"({deepest})", "(" * 500, "(" * 9999, "toy(hidden=" + "[" * 500):
        lines = refusal(text).split("\n")
        assert refusal(text).startswith(too_deep)
        opened = [i for i, c in enumerate(text) if c in "(["]
        assert lines[2] == f"    {' ' * opened[MAX_DEPTH]}^"
    assert len(Formula.parse("-".join(["(planar-loc)*2"] * 50))) == 200


def test_long_text() -> None:
    longest = ("loc-" * (MAX_LENGTH // 4))[:-1]
    assert len(Formula.parse(longest)) == MAX_LENGTH // 4
    text = longest + "-hh"
    lines = refusal(text).split("\n")
    assert lines[0] == f"the formula has {len(text)} characters; at most {MAX_LENGTH} are read"
    # The first character too many is the h of "hh" after the hyphen: all but its end is cut.
    assert text[MAX_LENGTH - 1 :] == "-hh"
    assert lines[1].startswith("    ...")
    assert lines[1][lines[2].index("^") :] == "hh"


def test_text_that_would_grow_too_long_when_written_out() -> None:
    text = ("toy(bound=9e15)-" * (MAX_LENGTH // 16))[:-1]
    assert len(text) < MAX_LENGTH < len(text.replace("9e15", "9000000000000000.0"))
    assert refusal(text).startswith(f"written out, the formula exceeds {MAX_LENGTH} characters\n")


@pytest.mark.parametrize("digits", ["1" * 33, "1" * 5000, "0" * 5000, "0." + "1" * 5000])
def test_huge_numbers(digits: str) -> None:
    lines = refusal(f"toy(bins={digits})").split("\n")
    assert lines[0] == f"the number '{digits[:27]}...' is out of range"
    assert lines[2] == f"    {' ' * 9}^"


# The page for users

PAGE = Path(__file__).parents[2] / "docs" / "formula.md"
SHOWN = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("shown", SHOWN)
def test_the_page_shows_the_errors_as_they_are(shown: str) -> None:
    text = shown.split("\n")[1].strip()
    with pytest.raises(FormulaError) as caught:
        parse_call(text, "base", BASES) if "studentt" in text else Formula.parse(text)
    assert str(caught.value).split("\n")[:3] == shown.rstrip().split("\n")


def test_the_page_shows_errors_and_the_bounds() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(SHOWN) >= 7
    assert f"hold {MAX_FLOWS:,} flows".replace(",", " ") in page
    assert f"nested {MAX_DEPTH} deep" in page
    assert f"{MAX_LENGTH:,}\n  characters".replace(",", " ") in page


def test_the_page_shows_the_python_as_it_is() -> None:
    # A fence right below the expected output would be taken for a part of it.
    page = PAGE.read_text(encoding="utf-8").replace("```", "")
    test = doctest.DocTestParser().get_doctest(page, {}, PAGE.name, str(PAGE), 0)
    assert doctest.DocTestRunner().run(test) == (0, 8)


# Flows from a formula


def test_build_gives_the_flows_in_order() -> None:
    flows = Formula.parse("scale-(planar-loc)*2").build(3)
    assert [type(flow).__name__ for flow in flows] == ["Scale", "Planar", "Loc", "Planar", "Loc"]
    assert len({id(flow) for flow in flows}) == 5
    assert {flow.dim for flow in flows} == {3}


def test_build_hands_over_options() -> None:
    text = "toy(hidden=[4,2],activation=silu,bins=5,bound=2,gate=false,features=fourier(8))"
    (flow,) = Formula.parse(text).build(2)
    assert isinstance(flow, Toy)
    assert flow.given == ([4, 2], "silu", 5, 2.0, False, Call("fourier", args=(8,)))
    (plain,) = Formula.parse("toy").build(2)
    assert isinstance(plain, Toy)
    assert plain.given == ([8], "tanh", 8, 3.0, True, "none")


def test_build_hands_over_jitter_only_where_given() -> None:
    (plain,) = Formula.parse("toy").build(2)
    (moved,) = Formula.parse("toy").build(2, jitter=0.0)
    assert isinstance(plain, Toy)
    assert isinstance(moved, Toy)
    assert "jitter" not in plain.common
    assert moved.common["jitter"] == 0.0


def test_build_starts_from_the_generator_in_the_dtype_asked_for() -> None:
    def values(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        formula = Formula.parse("loc*2-scale")
        flows = formula.build(4, jitter=1.0, generator=generator, dtype=torch.float64, device="cpu")
        return torch.stack([p for flow in flows for p in flow.parameters()])

    assert values(1).dtype == torch.float64
    assert torch.equal(values(1), values(1))
    assert not torch.equal(values(1), values(2))
    assert not torch.equal(values(1)[0], values(1)[1])


@pytest.mark.parametrize(
    ("text", "dim", "at", "words"),
    [
        ("Loc - Toy", 1, 4, "dim=1: Toy needs an integer of at least 2"),
        ("(loc*2-(hh-toy)*2)*3", 1, 11, "dim=1: Toy needs an integer of at least 2"),
        ("toy-toy(bins=1)", 2, 4, "bins=1: a toy needs at least 2"),
        ("planar*2", 0, 0, "dim=0: Planar needs an integer of at least 1"),
    ],
)
def test_what_a_flow_refuses_is_shown_at_the_flow(text: str, dim: int, at: int, words: str) -> None:
    formula = Formula.parse(text)
    with pytest.raises(FormulaError) as caught:
        formula.build(dim)
    assert str(caught.value) == f"{words}\n    {formula}\n    {' ' * at}^"
    assert isinstance(caught.value.__cause__, ValueError)


def indices(text: str) -> list[int]:
    """The index of each flow, by which families take turns."""
    return [flow.index for flow in Formula.parse(text).build(4)]


def test_layers_take_turns_by_family_and_anew_after_a_permutation():
    assert indices("realnvp*3") == [0, 1, 2]
    assert indices("realnvp-loc-maf-realnvp-maf") == [0, 0, 0, 1, 1]
    # The permutation takes the place of the turn: with both, layers would meet the same halves.
    assert indices("(realnvp-reverse)*2") == [0, 0, 0, 0]
    assert indices("realnvp*2-perm-realnvp*2") == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("text", ["realnvp*2", "(realnvp-reverse)*2", "(nsf-perm)*2"])
def test_two_coupling_layers_move_both_coordinates(text):
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        flows = Formula.parse(text).build(2, jitter=0.5, generator=generator)
        z = torch.tensor([[0.3, -0.4]])
        x = z
        for flow in flows:
            x = flow(x)[0]
        assert (x != z).all() and (x != z.flip(-1)).all()


@pytest.mark.parametrize("name", [n for n in registry.names() if registry.lookup(n).name == n])
def test_the_default_options_of_a_flow_are_a_formula(name):
    """What the tables show can be typed, and means the flow without options."""
    spec = registry.lookup(name)
    options = ",".join(map(str, spec.options.values()))
    (call,) = Formula.parse(f"{name}({options})" if options else name)
    given, default = spec.cls(3, **call.kwargs), spec.cls(3)
    shapes = [[p.shape for p in flow.parameters()] for flow in (given, default)]
    assert shapes[0] == shapes[1]
    assert set(call.kwargs) == set(spec.options)
