"""The layers of the networks that learned flows take their parameters from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nfvi.flows.base import Flow
from nfvi.flows.call import Call
from nfvi.flows.networks.activations import ACTIVATIONS
from nfvi.flows.networks.masked_linear import MaskedLinear

__all__ = ["REACH", "Features", "Network"]

Features: TypeAlias = str | Call

# Not measured: far beyond any standardised coordinate. Gradients of the first weights grow with the
# input, and float32 knows the phase of a wave there to 10⁻³ ω; further out, both get worse.
REACH = 1e4
"""Inputs further out than this look to a network as if they lay there."""
# Not measured: a slip of the keyboard is refused before it takes gigabytes.
MOST_UNITS = 100_000


class Network(nn.Module):
    """The layers of a multilayer perceptron from inputs and context to parameters of a flow.

    Args:
        flow: the layer that it belongs to, whose jitter, generator, dtype and context it takes.
            The last layer starts at ``jitter`` times normal draws, so that without jitter the
            output is 0 everywhere; the others start as usual, with variance 1/fan-in.
        inputs: number of inputs, at least 0.
        outputs: number of outputs, at least 1.
        hidden: units of each hidden layer.
        activation: ``"tanh"``, ``"silu"``, ``"relu"`` or ``"sin"``.
        features: ``"none"``, or ``fourier(k)`` for sin ω_j x and cos ω_j x, j = 1 … k, beside
            each input x, with learned frequencies ω that start spread evenly on a log scale
            from 0.5 to 0.5 k.

    Raises:
        ValueError: an option is none of these.
    """

    def __init__(
        self,
        flow: Flow,
        inputs: int,
        outputs: int,
        *,
        hidden: Sequence[int],
        activation: str = "tanh",
        features: Features = "none",
    ) -> None:
        super().__init__()
        self._check(hidden, activation)
        self.inputs, self.outputs, self.context_dim = inputs, outputs, flow.context_dim
        self.activation = ACTIVATIONS[activation]
        self.frequencies: nn.Parameter | None = None
        waves = _waves(features) if inputs else 0
        if waves:
            start = 0.5 * waves ** torch.linspace(0, 1, waves, dtype=torch.float64)
            spread = start.to(flow.noise(0)) * (0.1 * flow.noise(inputs, waves)).exp()
            self.frequencies = nn.Parameter(spread)
        self.per_input = 1 + 2 * waves
        sizes = [inputs * self.per_input + self.context_dim, *hidden, outputs]
        self.layers = nn.ModuleList(self._layers(flow, sizes))

    def _layers(self, flow: Flow, sizes: list[int]) -> list[MaskedLinear]:
        masks = self._masks(sizes)
        last = len(sizes) - 2
        return [
            MaskedLinear(flow.noise, m, n, mask, flow.jitter if i == last else 1.0)
            for i, ((m, n), mask) in enumerate(zip(itertools.pairwise(sizes), masks, strict=True))
        ]

    @torch.no_grad()
    def start_at(self, outputs: Tensor) -> None:
        """Shift the start of the last bias by ``outputs`` (outputs), the output without jitter."""
        bias = self.linears[-1].bias
        bias.add_(outputs.to(bias))

    def _masks(self, sizes: list[int]) -> list[Tensor | None]:
        return [None] * (len(sizes) - 1)

    @property
    def linears(self) -> list[MaskedLinear]:
        """The affine layers, first one first."""
        return list(self.layers)  # type: ignore[arg-type]

    @staticmethod
    def _check(hidden: Sequence[int], activation: str) -> None:
        for units in hidden:
            whole = isinstance(units, int) and not isinstance(units, bool)
            if not whole or not 1 <= units <= MOST_UNITS:
                raise ValueError(
                    f"hidden={list(hidden)!r}: the sizes of hidden layers must be whole numbers"
                    f" from 1 to {MOST_UNITS}, as in hidden=[64,64]"
                )
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: it must be one of {', '.join(ACTIVATIONS)}")


def _waves(features: Features) -> int:
    if features in ("none", Call("none")):
        return 0
    if isinstance(features, Call) and features.name == "fourier" and not features.options:
        (waves,) = features.args if len(features.args) == 1 else (None,)
        if isinstance(waves, int) and not isinstance(waves, bool) and 1 <= waves <= 1000:
            return waves
    raise ValueError(
        f"features={features}: it must be none or fourier(k) with k from 1 to 1000, as in"
        " features=fourier(16)"
    )
