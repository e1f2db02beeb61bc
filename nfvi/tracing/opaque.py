"""Functions that a graph calls as one operation, as torch cannot see what they do."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Opaque", "OpaqueFunction", "operation"]

OpaqueFunction: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points (n, d) to a value (n) and a gradient (n, d) of each, in the dtype of the points."""

_NUMBERS = itertools.count()
_KNOWN: weakref.WeakValueDictionary[int, Opaque] = weakref.WeakValueDictionary()


class Opaque:
    """A function as a graph knows it: by a number, for as long as somebody keeps this.

    Args:
        function: apart from autograd.

    Attributes:
        number: of it, in this process.
    """

    def __init__(self, function: OpaqueFunction) -> None:
        self.function, self.number = function, next(_NUMBERS)
        self._raised = threading.local()
        _KNOWN[self.number] = self

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The values and gradients."""
        try:
            return self.function(points)
        except BaseException as error:
            # TorchScript makes an error of its own of whatever comes through it.
            self._raised.error = error
            raise

    def raised(self) -> BaseException | None:
        """What a call in this thread has raised, told once; ``None`` where there is nothing."""
        error = getattr(self._raised, "error", None)
        self._raised.error = None
        return error


def operation(points: Tensor, function: Opaque) -> tuple[Tensor, Tensor]:
    """The call of a function as an operation of torch, which a graph can hold."""
    return torch.ops.nfvi.value_and_gradient(points, function.number)  # type: ignore[no-any-return]


@torch.library.custom_op("nfvi::value_and_gradient", mutates_args=())
def _call(points: Tensor, function: int) -> tuple[Tensor, Tensor]:
    return _KNOWN[function](points)


@_call.register_fake
def _shapes(points: Tensor, function: int) -> tuple[Tensor, Tensor]:
    """What PyTorch's compiler is to know of the values."""
    return points.new_empty(len(points)), torch.empty_like(points)
