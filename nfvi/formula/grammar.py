"""The syntax of formulas: from text to a tree of flows, counts and option values."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from nfvi.errors import FormulaError
from nfvi.flows import Call, Value
from nfvi.utils import caret, character, choice, quote

__all__ = ["COUNT", "Node", "place", "read", "read_call"]

MAX_LENGTH = 10_000
"""Characters in a text."""
MAX_DEPTH = 20
"""Brackets open at any one place; bounds every recursion over a tree."""
_MAX_DIGITS = 32
"""Characters in a number; the longest that Python writes for a float has 24."""
COUNT = "a count (a whole number from 1)"
"""What an error calls a count."""

Node: TypeAlias = "Token | Tree[Any]"

_PARSER = Lark(
    r"""
    formula: item ("-" item)*
    item: (group | call) ("*" NUMBER)?
    group: "(" formula ")"
    call: NAME ("(" (_argument ("," _argument)*)? ")")?
    _argument: option | _value
    option: NAME "=" _value
    _value: NUMBER | list | call
    list: "[" (_value ("," _value)*)? "]"
    NAME: /[A-Za-z][A-Za-z0-9_]*/
    NUMBER: /[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?/
    %ignore /\s+/
    """,
    parser="lalr",
    lexer="contextual",
    start=["formula", "call"],
    propagate_positions=True,
)
# Signs that may come next, in the order in which an error lists them.
_SIGNS = {
    "EQUAL": "'='",
    "COMMA": "','",
    "MINUS": "'-'",
    "STAR": "'*'",
    "LPAR": "'('",
    "RSQB": "']'",
    "RPAR": "')'",
    "$END": "the end",
}


def read(text: str, start: str, what: str) -> Tree[Any]:
    """The syntax tree of a text.

    Args:
        text: what the user wrote.
        start: the rule of the grammar that it must match, ``"formula"`` or ``"call"``.
        what: the word for it in errors.

    Raises:
        FormulaError: the text breaks the grammar, is too long or is nested too deep.
    """
    _check_size(text, what)
    try:
        return _PARSER.parse(text, start=start)
    except UnexpectedToken as error:
        raise _misread(text, error.token.start_pos or 0, error.token, start, what) from None
    except UnexpectedCharacters as error:
        position: Any = error.pos_in_stream
        raise _misread(text, position, None, start, what) from None


def _check_size(text: str, what: str) -> None:
    if not isinstance(text, str):
        raise FormulaError(f"a {what} is a string, not {type(text).__name__}")
    if not text.strip():
        hint = "; the simplest useful one is scale-loc" if what == "formula" else ""
        raise caret("", 0, f"the {what} is empty{hint}")
    if len(text) > MAX_LENGTH:
        message = f"the {what} has {len(text)} characters; at most {MAX_LENGTH} are read"
        raise caret(text, MAX_LENGTH, message)
    brackets = _open(text)
    if len(brackets) > MAX_DEPTH:
        raise caret(text, brackets[-1], f"brackets may be nested {MAX_DEPTH} deep, not deeper")


def _open(text: str) -> list[int]:
    """Where the brackets stand that are open at the end, or at the first place too deep."""
    brackets: list[int] = []
    for at, c in enumerate(text):
        if c in "([":
            brackets.append(at)
            if len(brackets) > MAX_DEPTH:
                break
        elif c in ")]" and brackets:
            brackets.pop()
    return brackets


def _misread(text: str, at: int, token: Token | None, start: str, what: str) -> FormulaError:
    ended = token is not None and token.type == "$END"
    if ended:
        # The parser reports the last token here; the caret belongs after it.
        at, found = len(text.rstrip()), "the end"
    else:
        found = quote(token) if token is not None else character(text[at])
    words = _expected(text[:at], start, what, ended)
    hint = ""
    if token is not None and token.type == "NUMBER" and {"a flow", "'*'"} & set(words):
        hint = "; a count comes after its flow, as in planar*2"
    elif found == "')'" and not _open(text[:at]):
        hint = "; no '(' is open"
    return caret(text, at, f"expected {choice(words)}, found {found}{hint}")


def _expected(prefix: str, start: str, what: str, ended: bool) -> list[str]:
    """In words, what may follow ``prefix``, a text that is right so far."""
    # The state in which the parser found the error has reduced on a wrong sign already and has
    # forgotten some of what was possible, so the right part is read again.
    run: Any = _PARSER.parse_interactive(prefix, start=start)
    run.exhaust_lexer()
    accepted: set[str] = run.accepts()
    if accepted == {"NUMBER"}:
        return [COUNT]
    brackets = _open(prefix)
    words = []
    if "NUMBER" in accepted:
        option = prefix[brackets[-1]] == "(" and not prefix.rstrip().endswith("=")
        words = ["an option (name=value)" if option else "a value"]
    elif "NAME" in accepted:
        words = ["a flow" if start == "formula" else f"the name of a {what}"]
    elif ended and brackets:
        accepted &= {"EQUAL", "RPAR", "RSQB"}
    return words + [sign for key, sign in _SIGNS.items() if key in accepted]


def place(node: Node) -> int:
    """Where a node of the tree starts in its text, from 0."""
    at = node.start_pos if isinstance(node, Token) else node.meta.start_pos
    return at or 0


def read_call(tree: Tree[Any], text: str) -> Call:
    """The call that a tree stands for.

    Raises:
        FormulaError: an option is given twice, a value without a name follows one with a name,
            or a number is out of range.
    """
    name, *arguments = tree.children
    args: list[Value] = []
    options: dict[str, Value] = {}
    for node in arguments:
        if not (isinstance(node, Tree) and node.data == "option"):
            if options:
                raise caret(text, place(node), "values without a name come before the options")
            args.append(_read_value(node, text))
            continue
        key, value = node.children
        if (option := str(key).lower()) in options:
            raise caret(text, place(key), f"option {quote(option)} is given twice")
        options[option] = _read_value(value, text)
    return Call(str(name).lower(), tuple(sorted(options.items())), tuple(args))


def _read_value(node: Node, text: str) -> Value:
    if isinstance(node, Token):
        return _number(node, text)
    if node.data == "list":
        return tuple(_read_value(child, text) for child in node.children)
    call = read_call(node, text)
    if call.options or call.args:
        return call
    return {"true": True, "false": False}.get(call.name, call.name)


def _number(token: Token, text: str) -> int | float:
    # No number that a flow can use is longer; Python itself refuses integers of 4301 digits.
    if len(token) > _MAX_DIGITS or math.isinf(float(token)):
        raise caret(text, place(token), f"the number {quote(token)} is out of range")
    return int(token) if token.lstrip("+-").isdigit() else float(token)
