"""Stan programs built by PyStan's compilers (httpstan), with functions of our own beside its."""

from __future__ import annotations

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from nfvi.errors import TargetError
from nfvi.targets.stan_models import NO_STAN, REJECTED, short

__all__ = ["built", "built_library", "is_built_with_functions"]

FUNCTIONS = Path(__file__).with_name("stan_held.cpp")
# Of a second each.
TRIES = 60
# Those of httpstan itself, and our functions before what Stan's compiler writes.
COMPILER = ("-O3", "-std=c++14", "-Wno-sign-compare", "-include", str(FUNCTIONS))
NEWEST = b"nfvi_densities"
"""The name of the function that came last: builds without it are built again."""


def built(program: str, name: str) -> Any:
    """PyStan's module of a program, from httpstan's own cache or built now, which takes a minute.

    Args:
        program: the text of the program.
        name: for errors.

    Raises:
        ImportError: httpstan is not installed.
        TargetError: the program cannot be compiled.
    """
    models = _httpstan().models
    key = models.calculate_model_name(program)
    try:
        return models.import_services_extension_module(key)
    except KeyError:
        _build_in_thread(program, key, name)
        return models.import_services_extension_module(key)


def built_library(program: str, name: str) -> str:
    """The path of a library with our functions; what PyStan built alone is built again.

    Args, Raises: as for :func:`built`.
    """
    if not is_built_with_functions(program):
        key = _httpstan().models.calculate_model_name(program)
        _build_in_thread(program, key, name)
    (path,) = _cached(program)
    # By a name of its own: what PyStan built under the other may be loaded in this process.
    return f"{path.parent}/./{path.name}"


def is_built_with_functions(program: str) -> bool:
    """Whether a program has been built with our functions.

    Raises:
        ImportError: httpstan is not installed.
    """
    return any(NEWEST in path.read_bytes() for path in _cached(program))


def _httpstan() -> Any:
    try:
        import httpstan.cache
        import httpstan.compile
        import httpstan.models
    except ImportError as error:
        raise ImportError(NO_STAN) from error
    return httpstan


def _cached(program: str) -> list[Path]:
    """The library that httpstan keeps of a program; empty if it has not been built."""
    httpstan = _httpstan()
    folder = Path(httpstan.cache.model_directory(httpstan.models.calculate_model_name(program)))
    return [path for path in folder.glob("*") if path.suffix in EXTENSION_SUFFIXES]


def _build_in_thread(program: str, key: str, name: str) -> None:
    try:
        # In a thread of its own, as a notebook has a loop of events that runs already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_build_patiently, program, key).result()
    except (*REJECTED, OSError, subprocess.SubprocessError) as error:
        raise TargetError(f"Stan could not compile {name!r}: {short(error)}") from error


def _build_patiently(program: str, key: str) -> None:
    """Again where Stan's compiler ran out of time: httpstan gives it a second."""
    for left in reversed(range(TRIES)):
        try:
            return asyncio.run(_build(program, key))
        except subprocess.TimeoutExpired:
            if not left:
                raise


async def _build(program: str, key: str) -> None:
    """Build the module, with all that PyStan looks for beside one that is built already."""
    httpstan = _httpstan()
    cache, compile, models = httpstan.cache, httpstan.compile, httpstan.models
    _, warnings = compile.compile(program, f"model_{key.removeprefix('models/')}")
    output = await models.build_services_extension_module(program, list(COMPILER))
    cache.dump_stanc_warnings(warnings, key)
    cache.dump_services_extension_module_compiler_output(output, key)
