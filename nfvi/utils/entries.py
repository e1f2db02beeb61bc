"""Values read from a file, each checked against the type that it is to have."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union

__all__ = ["Amount", "Count", "Floating", "Positive", "Seed", "Within", "check_entries", "entry"]
__all__ += ["record_of"]

_T = TypeVar("_T")
MOST = 2**63 - 1


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both of which it may have; NaN is outside."""

    least: float
    most: float = MOST


Count: TypeAlias = Annotated[int, Within(0)]
Positive: TypeAlias = Annotated[int, Within(1)]
Seed: TypeAlias = Annotated[int, Within(0)]
Amount: TypeAlias = Annotated[float, Within(0)]
Floating: TypeAlias = Literal["float16", "bfloat16", "float32", "float64"]

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def entry(value: Any, hint: Any, place: str) -> Any:
    """A value out of JSON as the type in a hint, numbers within their bounds.

    Args:
        value: as :func:`json.loads` gave it.
        hint: ``int``, ``float`` (which takes whole numbers too), ``str``, ``bool``, ``None``, a
            ``Literal``, a union, ``tuple[X, ...]`` or ``tuple[X, Y]`` (from a list), or
            ``Annotated[number, Within(least, most)]``.
        place: what an error calls it, ``"restarts[0].elbo"``.

    Raises:
        ValueError: it is of another type or out of bounds; the message names the place.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _bounded(value, options[0], options[1], place)
    if origin in (Union, types.UnionType):
        return _one_of(value, options, hint, place)
    if origin is tuple:
        return _row(value, options, hint, place)
    if origin is Literal:
        if not isinstance(value, str) or value not in options:
            raise _wrong(value, hint, place)
        return value
    return _plain(value, hint, place)


def check_entries(
    values: Any,
    required: Mapping[str, Any],
    optional: Mapping[str, Any] | None = None,
    place: str = "",
) -> dict[str, Any]:
    """Check the values of a dict by name; those that have no hint are left alone.

    Args:
        values: the dict.
        required: name -> hint as for :func:`entry`.
        optional: the same for names that may be absent.
        place: what an error calls the dict.

    Returns:
        A copy with the values that were checked in their types.

    Raises:
        ValueError: a value is missing or wrong; the message names it.
    """
    if not isinstance(values, dict):
        raise _wrong(values, dict, place)
    hints = {**(optional or {}), **required}
    for name in required:
        if name not in values:
            raise ValueError(f"it has no entry {_join(place, name)}")
    return {
        name: entry(value, hints[name], _join(place, name)) if name in hints else value
        for name, value in values.items()
    }


def record_of(
    cls: type[_T], values: Any, place: str, *, without: Sequence[str] = (), **narrower: Any
) -> _T:
    """A dataclass from a dict, every field checked against its annotation.

    Args:
        cls: the dataclass.
        values: name -> value.
        place: what an error calls the dict.
        without: fields that a file does not hold.
        narrower: name -> hint, for fields that take less than their annotation says.

    Raises:
        ValueError: a field is missing, unknown or wrong; the message names it.
    """
    hints = {**typing.get_type_hints(cls), **narrower}
    known = [field for field in fields(cls) if field.name not in without]  # type: ignore[arg-type]
    required = {f.name: hints[f.name] for f in known if f.default is MISSING}
    optional = {f.name: hints[f.name] for f in known if f.default is not MISSING}
    read = check_entries(values, required, optional, place)
    for name in read:
        if name not in required and name not in optional:
            raise ValueError(f"its entry {_join(place, name)} is not known here")
    return cls(**read)


def _plain(value: Any, hint: Any, place: str) -> Any:
    huge = isinstance(value, int) and abs(value) > MOST
    if hint is float and type(value) is int and not huge:
        return float(value)
    if huge or type(value) is not (type(None) if hint is None else hint):
        raise _wrong(value, hint, place)
    return value


def _bounded(value: Any, hint: Any, bounds: Within, place: str) -> Any:
    value = entry(value, hint, place)
    if not bounds.least <= value <= bounds.most:
        most = "" if bounds.most == MOST else f" and at most {bounds.most:g}"
        raise ValueError(
            f"its entry {place} is {value!r}; it must be at least {bounds.least:g}{most}"
        )
    return value


def _one_of(value: Any, options: tuple[Any, ...], hint: Any, place: str) -> Any:
    if value is None and type(None) in options:
        return None
    problem: ValueError = _wrong(value, hint, place)
    for option in options:
        if option is type(None):
            continue
        try:
            return entry(value, option, place)
        except ValueError as error:
            problem = error
    raise problem


def _row(value: Any, options: tuple[Any, ...], hint: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(value, hint, place)
    if options[-1] is Ellipsis:
        options = options[:1] * len(value)
    if len(value) != len(options):
        raise _wrong(value, hint, place)
    pairs = zip(value, options, strict=True)
    return tuple(entry(item, option, f"{place}[{i}]") for i, (item, option) in enumerate(pairs))


def _wrong(value: Any, hint: Any, place: str) -> ValueError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return ValueError(f"its entry {place or 'header'} is {shown}; it must be {_named(hint)}")


def _named(hint: Any) -> str:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, options))
    if origin is Annotated:
        return _named(options[0])
    if origin is tuple:
        return "a list" if options[-1] is Ellipsis else f"a list of {len(options)}"
    if options:
        return " or ".join(map(_named, options))
    if hint in (None, type(None)):
        return "null"
    return _WORDS.get(hint, "an object")


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
