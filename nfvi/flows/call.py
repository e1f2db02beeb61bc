"""A name with options, as it stands in a formula or as the value of an option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from nfvi.errors import FormulaError
from nfvi.utils import caret

__all__ = ["Call", "Value"]

Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | Call"


@dataclass(frozen=True)
class Call:
    """A name with values in brackets, such as ``iaf(hidden=[64,64])`` or ``fourier(8)``.

    Args:
        name: lower case.
        options: (name, value) pairs in alphabetical order; a list is a tuple.
        args: values without a name, which come before the options.
    """

    name: str
    options: tuple[tuple[str, Value], ...] = ()
    args: tuple[Value, ...] = ()

    @property
    def kwargs(self) -> dict[str, Any]:
        """The options as keyword arguments, where a list is a list."""
        return {name: _argument(value) for name, value in self.options}

    def __str__(self) -> str:
        written = self._written()
        return f"{self.name}({','.join(written)})" if written else self.name

    def wrong(self, message: str, option: str | None = None) -> FormulaError:
        """An error about the call, with the caret under its name or under an option of it."""
        at = 0
        if option is not None:
            index = len(self.args) + [name for name, _ in self.options].index(option)
            at = len(self.name) + 1 + sum(len(w) + 1 for w in self._written()[:index])
        return caret(str(self), at, message)

    def _written(self) -> list[str]:
        return [*map(_write, self.args), *(f"{name}={_write(v)}" for name, v in self.options)]


def _write(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_write, value))}]"
    return str(value).lower()


def _argument(value: Value) -> Any:
    return [_argument(v) for v in value] if isinstance(value, tuple) else value
