"""A masked conditioner unrolled, for the direction that goes coordinate by coordinate."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear

from nfvi.flows.networks.conditioner import REACH, MaskedConditioner

__all__ = ["Walk"]


class Walk:
    """A masked conditioner whose inputs become known one after the other.

    Args:
        net: the conditioner.
        like: a tensor (\\*, d) with the batch shape, dtype and device of the inputs to come.
        context: (\\*, c) or ``None``.
    """

    def __init__(self, net: MaskedConditioner, like: Tensor, context: Tensor | None) -> None:
        self.net = net
        first, *middle = net.linears
        matrix: Tensor = first.masked()
        # Split once: slicing inside the loop would cost a gradient of full size for each slice.
        columns = matrix.split(net.per_input, 1)
        self.columns = columns[: net.inputs]
        start: Tensor = first.bias
        if net.context_dim:
            inside = context.clamp(-REACH, REACH)  # type: ignore[union-attr]
            start = linear(inside, matrix[:, net.inputs * net.per_input :], start)
        self.sum = start.expand(*like.shape[:-1], matrix.shape[0])
        self.middle = [(layer.masked(), layer.bias) for layer in middle]
        if middle:
            weight, bias = self.middle.pop()
            self.rows = weight.unflatten(0, (net.inputs, net.each)).unbind(0)
            self.bias = bias.unflatten(0, (net.inputs, net.each)).unbind(0)

    def parameters_of(self, i: int) -> Tensor:
        """The parameters (\\*, P) of coordinate i, once all before it were added."""
        net = self.net
        if len(net.linears) == 1:
            every: Tensor = self.sum.unflatten(-1, (net.inputs, net.each))
            return every.select(-2, i)
        h = net.activation.function(self.sum)
        for weight, bias in self.middle:
            h = net.activation.function(linear(h, weight, bias))
        return linear(h, self.rows[i], self.bias[i])

    def add(self, i: int, x: Tensor) -> None:
        """Take up coordinate i, x (\\*)."""
        features = self.net.expand(x.unsqueeze(-1), only=i)
        self.sum = self.sum + linear(features, self.columns[i])
