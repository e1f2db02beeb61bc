"""A masked conditioner unrolled, for the direction that goes coordinate by coordinate."""

from __future__ import annotations

from torch import Tensor

from nfvi.flows.networks.masked_conditioner import MaskedConditioner

__all__ = ["Walk"]


class Walk:
    """A masked conditioner whose inputs become known one after the other.

    Args:
        net: the conditioner.
        like: a tensor (d, n) with the number of draws, dtype and device of the inputs to come.
        context: (c, n) or ``None``.
    """

    def __init__(self, net: MaskedConditioner, like: Tensor, context: Tensor | None) -> None:
        self.net = net
        first, *middle = net.linears
        matrix: Tensor = first.masked()
        # Split once: slicing inside the loop would cost a gradient of full size for each slice.
        columns = matrix.split(net.per_input, 1)
        self.columns = columns[: net.inputs]
        start: Tensor = first.bias.unsqueeze(-1)
        if net.context_dim:
            start = matrix[:, net.inputs * net.per_input :] @ net.inside(context) + start
        self.sum = start.expand(-1, like.shape[-1])
        self.middle = [(layer.masked(), layer.bias.unsqueeze(-1)) for layer in middle]
        if middle:
            weight, bias = self.middle.pop()
            self.rows = weight.unflatten(0, (net.inputs, net.each)).unbind(0)
            self.bias = bias.unflatten(0, (net.inputs, net.each)).unbind(0)

    def parameters_of(self, i: int) -> Tensor:
        """The parameters (P, n) of coordinate i, once all before it were added."""
        net = self.net
        if len(net.linears) == 1:
            every: Tensor = self.sum.unflatten(0, (net.inputs, net.each))
            return every[i]
        h = net.activation.function(self.sum)
        for weight, bias in self.middle:
            h = net.activation.function(weight @ h + bias)
        return self.rows[i] @ h + self.bias[i]  # type: ignore[no-any-return]

    def add(self, i: int, x: Tensor) -> None:
        """Take up coordinate i, x (n)."""
        features = self.net.expand(x.unsqueeze(0), only=i)
        self.sum = self.sum + self.columns[i] @ features
