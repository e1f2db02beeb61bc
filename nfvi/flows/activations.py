"""The activations of the conditioner networks, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

__all__ = ["ACTIVATIONS", "Activation"]


class Activation(NamedTuple):
    """A function of a tensor and its derivative."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _d_silu(a: Tensor) -> Tensor:
    s = a.sigmoid()
    return s * (1 + a * (1 - s))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, lambda a: 1 - a.tanh().square()),
    "silu": Activation(silu, _d_silu),
    "relu": Activation(torch.relu, lambda a: (a > 0).to(a.dtype)),
    "sin": Activation(torch.sin, torch.cos),
}
