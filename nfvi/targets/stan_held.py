"""A Stan model that holds its data, by functions of our own that are built with it."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nfvi.errors import TargetError
from nfvi.targets.stan_builds import built_library
from nfvi.targets.stan_models import StanModel, one_line

__all__ = ["HeldModel"]

# Bytes for what went wrong.
MESSAGE = 2000
# Points that Ctrl-C waits for.
AT_ONCE = 256


class HeldModel(StanModel):
    """A model that reads its data once, as a library of C.

    PyStan's own functions read them at every call, and leave out the constants of statements
    with ``~``.

    Args:
        program: the text of the program.
        data: as lists and numbers.
        name: for tables and figures.

    Raises:
        ImportError: httpstan is not installed.
        TargetError: the program or the data are wrong.
    """

    lacks_constants = False
    threads = True
    slow = False
    work = 1e4

    def __init__(self, program: str, data: Mapping[str, Any], name: str) -> None:
        self._program, self._data, self.name = program, dict(data), name
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """Without the library, which another process opens for itself."""
        return {name: self.__dict__[name] for name in ("_program", "_data", "name")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __del__(self) -> None:
        if getattr(self, "_made", None):
            self._library.nfvi_close(self._made)

    def density(self, point: np.ndarray) -> float:
        value = ctypes.c_double()
        point = np.ascontiguousarray(point)
        self._call("nfvi_density", point.ctypes.data, ctypes.byref(value))
        return value.value

    def densities(self, points: np.ndarray) -> np.ndarray:
        return self._at(points, None)

    def with_gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradients = np.empty(points.shape)
        return self._at(points, gradients), gradients

    def constrained(self, point: np.ndarray) -> np.ndarray:
        scalars, point = np.empty(len(self.names)), np.ascontiguousarray(point)
        self._call("nfvi_constrain", point.ctypes.data, scalars.ctypes.data)
        return scalars

    def _call(self, function: str, *arguments: Any) -> None:
        message = ctypes.create_string_buffer(MESSAGE)
        if getattr(self._library, function)(self._made, *arguments, message, MESSAGE):
            raise RuntimeError(_text(message))

    def _at(self, points: np.ndarray, gradients: np.ndarray | None) -> np.ndarray:
        """log p (n) at points, and its gradients into an array where one is given."""
        points, values = np.ascontiguousarray(points), np.empty(len(points))
        for first in range(0, len(points), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            place = None if gradients is None else gradients[some].ctypes.data
            part = points[some].ctypes.data, len(points[some]), values[some].ctypes.data
            self._library.nfvi_densities(self._made, *part, place)
        return values

    def _open(self) -> None:
        self._library = _library(built_library(self._program, self.name))
        made, message = ctypes.c_void_p(), ctypes.create_string_buffer(MESSAGE)
        data = json.dumps(self._data).encode()
        if self._library.nfvi_open(data, ctypes.byref(made), message, MESSAGE):
            raise TargetError(f"Stan refused the data of {self.name!r}: {one_line(_text(message))}")
        self._made = made
        self.dim = int(self._library.nfvi_dim(made))
        size = self._library.nfvi_names(made, None, 0)
        names = ctypes.create_string_buffer(size + 1)
        self._library.nfvi_names(made, names, size + 1)
        self.names = _text(names).splitlines()


def _library(path: str) -> Any:
    """Our functions of a library that was built with them."""
    library = ctypes.CDLL(path)
    whole, place, text = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
    library.nfvi_open.argtypes = [text, place, place, whole]
    library.nfvi_close.argtypes = library.nfvi_dim.argtypes = [place]
    library.nfvi_close.restype = None
    library.nfvi_names.argtypes = [place, place, whole]
    library.nfvi_density.argtypes = [place, place, place, place, whole]
    library.nfvi_densities.argtypes = [place, place, whole, place, place]
    library.nfvi_densities.restype = None
    library.nfvi_constrain.argtypes = [place, place, place, place, whole]
    return library


def _text(message: Any) -> str:
    return bytes(message.value).decode(errors="replace")
