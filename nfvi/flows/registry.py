"""The catalogue of flows: what the parser, the error messages, the docs and the tests read."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from nfvi.flows.base import Flow

__all__ = ["FlowSpec", "Option", "lookup", "names", "register"]

_COMMON = {"context_dim", "index", "jitter", "generator", "dtype", "device"}
_F = TypeVar("_F", bound="type[Flow]")


@dataclass(frozen=True)
class Option:
    """A keyword that a flow takes in a formula: its name, default and type."""

    name: str
    default: Any
    kind: type

    def __str__(self) -> str:
        """The option with its default, as a formula has it: ``hidden=[64,64]``."""
        value = self.default
        if isinstance(value, tuple | list):
            return f"{self.name}=[{','.join(map(str, value))}]"
        return f"{self.name}={str(value).lower()}"


@dataclass(frozen=True)
class FlowSpec:
    """A registered flow: name, class, one-line help, options by name, other names."""

    name: str
    cls: type[Flow]
    help: str
    options: dict[str, Option]
    aliases: tuple[str, ...] = ()


_REGISTRY: dict[str, FlowSpec] = {}
_ALIASES: dict[str, str] = {}


def register(name: str, *, help: str, aliases: tuple[str, ...] = ()) -> Callable[[_F], _F]:
    """Enter a flow class in the catalogue under ``name``.

    The options are the keyword-only parameters of ``cls.__init__`` beside ``context_dim``,
    ``index``, ``jitter``, ``generator``, ``dtype`` and ``device``, which every flow takes; each
    needs a default and an annotation.

    Args:
        name: what a formula calls it; lower case letters and digits, a letter first.
        help: one line with the map.
        aliases: other names for the same flow.

    Raises:
        ValueError: the name or an alias is taken.
    """

    def enter(cls: _F) -> _F:
        for key in (name, *aliases):
            if key in _REGISTRY or key in _ALIASES:
                raise ValueError(f"a flow named {key!r} is registered already")
        _REGISTRY[name] = FlowSpec(name, cls, help, _options(cls), aliases)
        _ALIASES.update(dict.fromkeys(aliases, name))
        return cls

    return enter


def _options(cls: type) -> dict[str, Option]:
    # Looked up on the class, not on an instance: `cls.__init__` is what a formula will call.
    signature = inspect.signature(cls)
    hints = typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    return {
        p.name: Option(p.name, p.default, _kind(hints[p.name]))
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in _COMMON
    }


def _kind(hint: Any) -> type:
    kind = typing.get_origin(hint) or hint
    return list if kind is Sequence else kind


def lookup(name: str) -> FlowSpec:
    """The entry for a flow's name or alias.

    Raises:
        KeyError: no such flow.
    """
    return _REGISTRY[_ALIASES.get(name, name)]


def names() -> list[str]:
    """Every name and alias that a formula may use, in alphabetical order."""
    return sorted([*_REGISTRY, *_ALIASES])
