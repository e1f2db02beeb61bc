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


def _d_silu(a: Tensor, h: Tensor) -> Tensor:
    s = a.sigmoid()
    return s + h * (1 - s)


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, lambda a, h: 1 - h * h),
    "silu": Activation(silu, _d_silu),
    "relu": Activation(torch.relu, lambda a, h: (a > 0).to(a.dtype)),
    "sin": Activation(torch.sin, lambda a, h: a.cos()),
}
