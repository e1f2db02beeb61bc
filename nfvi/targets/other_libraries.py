"""What is handed over in place of a target, and belongs to a library that has its own target."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

__all__ = ["advice_on"]

NUMPYRO = (
    "{name!r} is a NumPyro model: fit NumPyroTarget({name}, ...), with the model's arguments after"
    " it; the extra is `jax`, pip install 'nfvi[jax]'"
)
JAX = (
    "{name!r} is a function of JAX: fit JaxLogDensity({name}, dim=2), with its number of"
    " coordinates, written for one point z (d,) -> (); the extra is `jax`, pip install 'nfvi[jax]'"
)
STAN = (
    "{what} is a Stan model: fit StanTarget({how}); the extra is `stan`, pip install 'nfvi[stan]'"
)
OWN = {"torch", "pyro"}


def advice_on(target: Any) -> str | None:
    """What to write for an object of JAX, NumPyro or Stan; ``None`` for all others."""
    package = type(target).__module__.partition(".")[0]
    if package in {"stan", "bridgestan"}:
        return STAN.format(what=f"a {package} model", how="model")
    if package == "cmdstanpy":
        return STAN.format(what="a CmdStanModel", how="model.stan_file, data=data")
    if isinstance(target, str | os.PathLike) and str(target).endswith(".stan"):
        return STAN.format(what=repr(str(target)), how=f"{str(target)!r}, data=data")
    used = set(_libraries(target))
    name = getattr(_bare(target), "__name__", type(target).__name__)
    if used & OWN:
        return None
    if "numpyro" in used:
        return NUMPYRO.format(name=name)
    return JAX.format(name=name) if "jax" in used else None


def _bare(target: Any) -> Any:
    """The function within handlers, decorators and methods."""
    for _ in range(20):
        inner = getattr(target, "__wrapped__", None) or getattr(target, "__func__", None)
        if inner is None and not hasattr(target, "__code__"):
            inner = vars(target).get("fn") if hasattr(target, "__dict__") else None
        if inner is None:
            return target
        target = inner
    return target


def _libraries(target: Any) -> Iterator[str]:
    """The packages of the modules, classes and functions that a function names."""
    yield type(target).__module__.partition(".")[0]
    bare = _bare(target)
    code, names = getattr(bare, "__code__", None), getattr(bare, "__globals__", {})
    if isinstance(code, CodeType):
        for name in code.co_names:
            value = names.get(name)
            full = value.__name__ if isinstance(value, ModuleType) else _home(value)
            yield full.partition(".")[0]


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "") if callable(value) else ""
