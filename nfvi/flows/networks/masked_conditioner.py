"""Networks whose outputs for a coordinate see those before it alone, for many draws at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from nfvi.flows.base import Flow
from nfvi.flows.networks.network import REACH, Features, Network
from nfvi.flows.numerics import FEW_DIMENSIONS

__all__ = ["MaskedConditioner"]


class MaskedConditioner(Network):
    """A perceptron whose outputs for coordinate i see the coordinates that come before i alone.

    Draws are the last axis of all that goes in and comes out: parameters of one kind lie side by
    side then, and arithmetic on some of them goes through memory in long runs.

    Args:
        flow: as for :class:`~nfvi.flows.networks.network.Network`.
        each: outputs for each coordinate, P.
        backwards: whether the coordinates come from last to first, and not from first to last.
        options: ``hidden``, ``activation`` and ``features``, likewise.

    Reference:
        Germain, Gregor, Murray and Larochelle, MADE: masked autoencoder for distribution
        estimation, 2015.
    """

    def __init__(
        self,
        flow: Flow,
        each: int,
        *,
        backwards: bool,
        hidden: Sequence[int],
        activation: str = "tanh",
        features: Features = "none",
    ) -> None:
        self.each, self.backwards = each, backwards
        # The first coordinate sees nothing but the context: a network would be a constant.
        alone = flow.dim == 1 and not flow.context_dim
        super().__init__(
            flow,
            flow.dim,
            flow.dim * each,
            hidden=[] if alone else hidden,
            activation=activation,
            features="none" if alone else features,
        )

    def _masks(self, sizes: list[int]) -> list[Tensor | None]:
        """MADE's masks: a unit of degree m sees inputs of rank below m."""
        dim = self.inputs
        rank = torch.arange(dim)
        rank = rank.flip(0) if self.backwards else rank
        least = 0 if self.context_dim else 1
        degrees = [(rank + 1).repeat_interleave(self.per_input)]
        degrees[0] = torch.cat([degrees[0], torch.zeros(self.context_dim, dtype=torch.long)])
        for units in sizes[1:-1]:
            spread = torch.arange(units) * (dim - least) // units
            degrees.append(spread + least)
        masks: list[Tensor | None] = [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        seen = (rank + 1).repeat_interleave(self.each)
        return [*masks, seen[:, None] > degrees[-1]]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters (d, P, n) at inputs x (d, n) and context (c, n)."""
        h = self._first(x, context)
        *layers, last = self.linears
        for layer in layers:
            h = self.activation.function(layer.across(h))
        return last.across(h).unflatten(0, (self.inputs, self.each))  # type: ignore[no-any-return]

    def taped(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The parameters (d, P, n), and the slopes of the activations that they went through."""
        h, slopes = self._first(x, context), []
        *layers, last = self.linears
        for layer in layers:
            a = layer.across(h)
            h = self.activation.function(a)
            slopes.append(self.activation.derivative(a.detach(), h.detach()))
        return last.across(h).unflatten(0, (self.inputs, self.each)), slopes

    def _first(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = self.expand(x)
        return torch.cat([x, self.inside(context)]) if self.context_dim else x

    def inside(self, context: Tensor | None) -> Tensor:
        """The context as the network sees it."""
        return context.clamp(-REACH, REACH)  # type: ignore[union-attr]

    def expand(self, x: Tensor, only: int | None = None) -> Tensor:
        """The features (inputs · per_input, n) of inputs x (inputs, n), input by input.

        Args:
            x: all inputs; or one of them (1, n).
            only: which one it is.
        """
        x = x.clamp(-REACH, REACH)
        if self.frequencies is None:
            return x
        omega = self.frequencies if only is None else self.frequencies[only : only + 1]
        x = x.unsqueeze(1)
        wave = x * omega.unsqueeze(-1)
        return torch.cat([x, wave.sin(), wave.cos()], 1).flatten(0, 1)

    @torch.no_grad()
    def pull_back(
        self, x: Tensor, slopes: list[Tensor], by_theta: Tensor, sum_by_theta: Tensor
    ) -> Tensor:
        """Derivatives (d, n, d) by the inputs from those by the parameters.

        Args:
            x: the inputs (d, n).
            slopes: from :meth:`taped`.
            by_theta: derivatives (d, P, n) of one value for each coordinate by its own parameters.
                All but the coordinate that comes first, whose parameters see no input, are the
                first d − 1 rows of the result, in their order.
            sum_by_theta: those (d, P, n) of one more value, which all parameters go into: the
                last row.
        """
        *layers, last = self.linears
        rows = self._behind_the_first(last.masked().unflatten(0, (self.inputs, self.each)))
        last_row = last.masked().mT @ sum_by_theta.flatten(0, 1)
        g = torch.cat([rows.mT @ self._behind_the_first(by_theta), last_row.unsqueeze(0)])
        for layer, slope in zip(layers[:0:-1], slopes[:0:-1], strict=True):
            g = layer.masked().mT @ (g * slope)
        if layers:
            first, g = layers[0].masked().narrow(1, 0, self.inputs * self.per_input), g * slopes[0]
            if self.inputs > FEW_DIMENSIONS and self.frequencies is None:
                # Matrices are wanted, and to transpose them later takes longer than all the rest.
                return (g.mT @ first) * self._within(x).mT
            g = first.mT @ g
        return self._by_input(g.narrow(1, 0, self.inputs * self.per_input), x).mT

    def _behind_the_first(self, values: Tensor) -> Tensor:
        """All but that of the coordinate which comes first."""
        return values.narrow(0, 0 if self.backwards else 1, self.inputs - 1)

    def _by_input(self, by_feature: Tensor, x: Tensor) -> Tensor:
        """From derivatives by the features (d, d · per_input, n) to those by the inputs."""
        if self.frequencies is None:
            return by_feature * self._within(x)
        omega = self.frequencies.unsqueeze(-1)
        wave = x.clamp(-REACH, REACH).unsqueeze(1) * omega
        slope = torch.cat([wave.cos() * omega, -wave.sin() * omega], 1)
        plain, waves = by_feature.unflatten(1, (self.inputs, self.per_input)).split(
            [1, self.per_input - 1], 2
        )
        by_input: Tensor = plain.squeeze(2) + (waves * slope).sum(2)
        return by_input * self._within(x)

    @staticmethod
    def _within(x: Tensor) -> Tensor:
        """1 where the network looks at an input, 0 where it lies further out."""
        return (x.abs() < REACH).to(x.dtype)
