"""The activations of the conditioner networks, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

__all__ = ["ACTIVATIONS", "Activation"]


class Activation(NamedTuple):
    """A function h = f(a), and its derivative from a and h."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]


# Named functions all, as a lambda cannot be pickled, nor any guide that holds one.


def _d_tanh(a: Tensor, h: Tensor) -> Tensor:
    return 1 - h * h


def _d_silu(a: Tensor, h: Tensor) -> Tensor:
    s = a.sigmoid()
    return s + h * (1 - s)


def _d_relu(a: Tensor, h: Tensor) -> Tensor:
    return (a > 0).to(a.dtype)


def _d_sin(a: Tensor, h: Tensor) -> Tensor:
    return a.cos()


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, _d_tanh),
    "silu": Activation(silu, _d_silu),
    "relu": Activation(torch.relu, _d_relu),
    "sin": Activation(torch.sin, _d_sin),
}
