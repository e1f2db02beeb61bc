"""The networks that learned flows take their parameters from."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.flows.base import Flow
from nfvi.flows.networks.network import REACH, Network

__all__ = ["Conditioner", "ContextNetwork"]

# Not measured: contexts are a few numbers, and a layer costs its operations, not its units.
CONTEXT_UNITS = (32, 32)


class Conditioner(Network):
    """A multilayer perceptron from inputs and context to the parameters of a flow.

    Its arguments are those of :class:`~nfvi.flows.networks.network.Network`.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs (\\*, outputs) for inputs x (\\*, inputs) and context (\\*, c)."""
        h = self._first(x, context)
        *layers, last = self.linears
        for layer in layers:
            h = self.activation.function(layer(h))
        return last(h)  # type: ignore[no-any-return]

    def _first(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = self._expand(x)
        if not self.context_dim:
            return x
        return torch.cat([x, context.clamp(-REACH, REACH)], -1)  # type: ignore[union-attr]

    def _expand(self, x: Tensor) -> Tensor:
        """The features (\\*, inputs · per_input) of inputs x (\\*, inputs), input by input."""
        x = x.clamp(-REACH, REACH)
        if self.frequencies is None:
            return x
        x = x.unsqueeze(-1)
        wave = x * self.frequencies
        return torch.cat([x, wave.sin(), wave.cos()], -1).flatten(-2)


class ContextNetwork(Conditioner):
    """A perceptron from the context alone, for flows whose parameters are not made by a network.

    Args:
        flow: as for :class:`Conditioner`; its ``context_dim`` must be over 0.
        outputs: number of outputs: what is added to the flow's own parameters.
    """

    def __init__(self, flow: Flow, outputs: int) -> None:
        super().__init__(flow, 0, outputs, hidden=CONTEXT_UNITS)

    def forward(self, x: Tensor | None, context: Tensor | None = None) -> Tensor:
        """Outputs (\\*, outputs) for contexts x (\\*, c)."""
        if x is None:
            raise ValueError("context is missing")
        return super().forward(x[..., :0], x)
