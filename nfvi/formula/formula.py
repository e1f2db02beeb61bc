"""Formulas: text such as ``planar*8-loc`` to a checked, hashable Formula, and from it to flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

import torch
from lark import Token, Tree

from nfvi.flows import Call, Flow, Option, Value, lookup, names
from nfvi.formula.grammar import COUNT, MAX_LENGTH, Node, place, read, read_call
from nfvi.formula.size import LARGE_DIM, estimated_size
from nfvi.utils import card, caret, check_memory, folded, html_table, nearest, quote

__all__ = ["MAX_FLOWS", "Formula", "Part", "parse_call"]

MAX_FLOWS = 10_000
"""Flows in a formula, groups and counts multiplied out."""
RUNS_SHOWN = 30

_Known: TypeAlias = Mapping[str, Mapping[str, Option]]
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a name",
    list: "a list such as [64,64]",
}


@dataclass(frozen=True)
class Part:
    """A flow or a group of parts, and how often it is repeated.

    Args:
        body: the flow, or the parts inside the brackets.
        count: at least 1.
    """

    body: Call | tuple[Part, ...]
    count: int = 1

    def __str__(self) -> str:
        body = str(self.body) if isinstance(self.body, Call) else f"({_join(self.body)})"
        return body if self.count == 1 else f"{body}*{self.count}"

    def __len__(self) -> int:
        return self.count * (1 if isinstance(self.body, Call) else sum(map(len, self.body)))


@dataclass(frozen=True, eq=False, repr=False)
class Formula:
    """The flows of a guide, in the order in which they are applied to the base.

    Made by :meth:`parse`. Two formulas are equal when their texts without blanks and in lower
    case are: ``planar*2`` differs from ``planar-planar``, though their ``layers`` are equal.

    >>> formula = Formula.parse("(Planar*2 - radial)*3 - loc")
    >>> str(formula), len(formula)
    ('(planar*2-radial)*3-loc', 10)
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if isinstance(self.parts, str):
            raise TypeError("a Formula is made from text by Formula.parse(text)")

    @classmethod
    def parse(cls, text: str | Formula) -> Formula:
        """Read a formula; one that is read already is returned as it is.

        Args:
            text: flows joined by ``-``, each with options in brackets and a count after ``*``,
                groups in brackets; case and blanks do not matter.

        Raises:
            FormulaError: the text is no formula; the message shows the place.
        """
        if isinstance(text, Formula):
            return text
        tree = read(text, "formula", "formula")
        known = {name: lookup(name).options for name in names()}
        formula = cls(tuple(_read_parts(tree, text, known)))
        # An alias or a number may be written longer than it was, and what str gives must parse.
        if len(str(formula)) > MAX_LENGTH:
            raise caret(
                text, len(text), f"written out, the formula exceeds {MAX_LENGTH} characters"
            )
        return formula

    @property
    def layers(self) -> tuple[Call, ...]:
        """Name and options of each flow, the one next to the base first."""
        return tuple(call for call, _ in _walk(self.parts))

    def build(
        self,
        dim: int,
        *,
        context_dim: int = 0,
        jitter: float | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> list[Flow]:
        """New flows on R^d, the one next to the base first.

        Args:
            dim: d, at least 1.
            context_dim: c, the length of the context vectors; 0 for none.
            jitter: standard deviation of the start around the identity; ``None`` leaves each
                flow its own default.
            generator: source of the start; ``None`` draws from torch's default generator.
            dtype: of the parameters; default ``torch.get_default_dtype()``.
            device: of the parameters; default the CPU.

        Raises:
            FormulaError: a flow cannot have this dimension or these options; the message shows
                which; or there is a context and no flow that takes one; or the numbers of the
                flows are more than the memory of the device holds.
        """
        self._check_size(dim, context_dim, dtype, device)
        common: dict[str, Any] = {"generator": generator, "dtype": dtype, "device": device}
        common["context_dim"] = context_dim
        if jitter is not None:
            common["jitter"] = jitter
        flows: list[Flow] = []
        for (call, index), (_, at) in zip(self.in_turn(), _walk(self.parts), strict=True):
            try:
                flows.append(lookup(call.name).cls(dim, **call.kwargs, **common, index=index))
            except ValueError as error:
                raise caret(str(self), at, str(error)) from error
        if context_dim and not any(flow.context_dim for flow in flows):
            able = ", ".join(name for name in names() if lookup(name).cls.takes_context)
            raise caret(str(self), 0, f"no flow here takes a context; those that do: {able}")
        return flows

    def in_turn(self) -> Iterator[tuple[Call, int]]:
        """Each flow with its index among those of its family, by which these take turns."""
        before: Counter[str] = Counter()
        for call in self:
            yield call, before[call.name]
            before[call.name] += 1
            # A permutation takes the place of the turns that layers take by themselves.
            if lookup(call.name).cls.permutes:
                before.clear()

    def estimated_size(self, dim: int, context_dim: int = 0) -> int:
        """How many numbers its flows on R^d hold, nearly, found without building them."""
        return estimated_size(self, dim, context_dim)

    def _check_size(
        self,
        dim: int,
        context_dim: int,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        if not isinstance(dim, int) or dim < LARGE_DIM:
            return
        size = self.estimated_size(dim, context_dim)
        needed = size * (dtype or torch.get_default_dtype()).itemsize
        what = f"in {dim:,} dimensions this formula has about {size:,} numbers, which"
        advice = "check dim=, or take a formula with fewer numbers, such as scale-loc"
        try:
            check_memory(what, needed, torch.device(device or "cpu"), advice)
        except ValueError as error:
            raise caret(str(self), 0, str(error)) from error

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Call]:
        return (call for call, _ in _walk(self.parts))

    def __str__(self) -> str:
        return _join(self.parts)

    def __repr__(self) -> str:
        return f"Formula.parse({str(self)!r})"

    def _repr_html_(self) -> str:
        runs = [(call, len(list(same))) for call, same in groupby(self)]
        rows = [[str(n), str(call), lookup(call.name).help] for call, n in runs[:RUNS_SHOWN]]
        more = f"... and {len(runs) - len(rows)} more" if len(runs) > len(rows) else ""
        title = f"{len(self):,} flows; the first is applied to the base first. {more}"
        return card(title, str(self), folded("flows", html_table([], rows, left=3)))

    # By text and not by value, for which the options 1, 1.0 and true would be equal.
    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Formula) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


def parse_call(text: str | Call, what: str = "base", known: _Known | None = None) -> Call:
    """Read a name with options, such as ``studentt(df=5)``; a :class:`Call` is returned as it is.

    Args:
        text: one call in the syntax of a formula, without counts and groups.
        what: the word for it in errors.
        known: the options of each name that is accepted; ``None`` accepts every name and option.

    Raises:
        FormulaError: the text is no call, or name or options are not known.
    """
    if isinstance(text, Call):
        return text
    tree = read(text, "call", what)
    return read_call(tree, text) if known is None else _read_known(tree, text, known, what)


def _join(parts: tuple[Part, ...]) -> str:
    return "-".join(map(str, parts))


def _walk(parts: tuple[Part, ...], at: int = 0) -> Iterator[tuple[Call, int]]:
    """Each flow with its place in the text of the formula."""
    for part in parts:
        for _ in range(part.count):
            if isinstance(part.body, Call):
                yield part.body, at
            else:
                yield from _walk(part.body, at + 1)
        at += len(str(part)) + 1


def _read_parts(tree: Tree[Any], text: str, known: _Known) -> list[Part]:
    parts: list[Part] = []
    size = 0
    for item in tree.children:
        body, *times = item.children
        if body.data == "group":
            inner = _read_parts(body.children[0], text, known)
        else:
            call = _read_known(body, text, known, "flow")
            inner = [Part(replace(call, name=lookup(call.name).name))]
        count = _read_count(times[0], text) if times else 1
        size += count * sum(map(len, inner))
        if size > MAX_FLOWS:
            at = place(times[0] if times else item)
            raise caret(text, at, f"too many flows: a formula holds at most {MAX_FLOWS}")
        parts += _repeat(inner, count)
    return parts


def _repeat(inner: list[Part], count: int) -> list[Part]:
    """Parts that stand in brackets, or one flow, ``count`` times; without needless brackets."""
    if count == 1:
        return inner
    if len(inner) == 1 and inner[0].count == 1:
        return [Part(inner[0].body, count)]
    return [Part(tuple(inner), count)]


def _read_count(node: Node, text: str) -> int:
    digits = str(node).lstrip("0")
    if not digits.isdigit():
        raise caret(text, place(node), f"expected {COUNT}, found {quote(str(node))}")
    # Nine digits are too many flows already; Python itself refuses to read 4301.
    return int(digits[:9])


def _read_known(tree: Tree[Any], text: str, known: _Known, what: str) -> Call:
    """A call whose name and options are known and whose values have the right types."""
    call = read_call(tree, text)
    if call.name not in known:
        alone = what == "flow" and call.name == "auto"
        hint = "; it is a whole formula, by itself" if alone else nearest(call.name, known)
        message = f"no {what} is called {quote(call.name)}{hint}"
        raise caret(text, place(tree), message, f"{what}s: {', '.join(sorted(known))}")
    options, values = known[call.name], dict(call.options)
    takes = f"{call.name} takes {', '.join(options) or 'no options'}"
    for node in tree.children[1:]:
        if isinstance(node, Token) or node.data != "option":
            raise caret(text, place(node), f"expected name=value; {takes}")
        key, given = node.children
        name = str(key).lower()
        if name not in options:
            message = f"{call.name} has no option {quote(name)}{nearest(name, options)}"
            raise caret(text, place(key), message, takes)
        values[name] = _read_option(options[name], values[name], call.name, place(given), text)
    return replace(call, options=tuple(sorted(values.items())))


def _read_option(option: Option, value: Value, owner: str, at: int, text: str) -> Value:
    if option.kind is float and type(value) is int:
        return float(value)
    if option.kind in _KINDS and type(value) is not (tuple if option.kind is list else option.kind):
        raise caret(text, at, f"{option.name} of {owner} must be {_KINDS[option.kind]}")
    return value
