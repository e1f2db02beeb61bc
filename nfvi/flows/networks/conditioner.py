"""The networks that learned flows take their parameters from."""

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

__all__ = [
    "REACH",
    "Conditioner",
    "ContextNetwork",
    "Features",
    "MaskedConditioner",
]

Features: TypeAlias = str | Call

# Not measured: far beyond any standardised coordinate. Gradients of the first weights grow with the
# input, and float32 knows the phase of a wave there to 10⁻³ ω; further out, both get worse.
REACH = 1e4
"""Inputs further out than this look to a network as if they lay there."""
# Not measured: a slip of the keyboard is refused before it takes gigabytes.
MOST_UNITS = 100_000
# Not measured: contexts are a few numbers, and a layer costs its operations, not its units.
CONTEXT_UNITS = (32, 32)


class Conditioner(nn.Module):
    """A multilayer perceptron from inputs and context to the parameters of a flow.

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

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs (\\*, outputs) for inputs x (\\*, inputs) and context (\\*, c)."""
        h = self._first(x, context)
        *layers, last = self.linears
        for layer in layers:
            h = self.activation.function(layer(h))
        return last(h)  # type: ignore[no-any-return]

    @property
    def linears(self) -> list[MaskedLinear]:
        """The affine layers, first one first."""
        return list(self.layers)  # type: ignore[arg-type]

    def _first(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = self.expand(x)
        if not self.context_dim:
            return x
        return torch.cat([x, context.clamp(-REACH, REACH)], -1)  # type: ignore[union-attr]

    def expand(self, x: Tensor, only: int | None = None) -> Tensor:
        """The features (\\*, inputs · per_input) of inputs x (\\*, inputs), input by input.

        Args:
            x: all inputs; or one of them (\\*, 1).
            only: which one it is.
        """
        x = x.clamp(-REACH, REACH)
        if self.frequencies is None:
            return x
        omega = self.frequencies if only is None else self.frequencies[only : only + 1]
        x = x.unsqueeze(-1)
        wave = x * omega
        return torch.cat([x, wave.sin(), wave.cos()], -1).flatten(-2)

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


class MaskedConditioner(Conditioner):
    """A perceptron whose outputs for coordinate i see the coordinates that come before i alone.

    Args:
        flow: as for :class:`Conditioner`.
        each: outputs for each coordinate, P.
        order: the rank of each coordinate, a permutation of 0 … d − 1.
        options: ``hidden``, ``activation`` and ``features`` of :class:`Conditioner`.

    Reference:
        Germain, Gregor, Murray and Larochelle, MADE: masked autoencoder for distribution
        estimation, 2015.
    """

    def __init__(
        self,
        flow: Flow,
        each: int,
        order: Sequence[int],
        *,
        hidden: Sequence[int],
        activation: str = "tanh",
        features: Features = "none",
    ) -> None:
        self.each, self.order = each, list(order)
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
        rank, dim = torch.tensor(self.order), len(self.order)
        least = 0 if self.context_dim else 1
        degrees = [(rank + 1).repeat_interleave(self.per_input)]
        degrees[0] = torch.cat([degrees[0], torch.zeros(self.context_dim, dtype=torch.long)])
        for units in sizes[1:-1]:
            spread = torch.arange(units) * (dim - least) // units
            degrees.append(spread + least)
        masks: list[Tensor | None] = [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        seen = (rank + 1).repeat_interleave(self.each)
        return [*masks, seen[:, None] > degrees[-1]]

    def parameters_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters (\\*, d, P) at inputs x (\\*, d)."""
        return self(x, context).unflatten(-1, (self.inputs, self.each))  # type: ignore[no-any-return]

    def taped(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The parameters (\\*, d, P), and the slopes of the activations that they went through."""
        h, slopes = self._first(x, context), []
        *layers, last = self.linears
        for layer in layers:
            a = layer(h)
            h = self.activation.function(a)
            slopes.append(self.activation.derivative(a.detach(), h.detach()))
        return last(h).unflatten(-1, (self.inputs, self.each)), slopes

    @torch.no_grad()
    def pull_back(
        self, x: Tensor, slopes: list[Tensor], by_theta: Tensor, sum_by_theta: Tensor
    ) -> Tensor:
        """Derivatives by the inputs (\\*, d + 1, d) from those by the parameters.

        Args:
            x: the inputs (\\*, d).
            slopes: from :meth:`taped`.
            by_theta: derivatives (\\*, d, P) of one value for each coordinate by its own
                parameters: the first d rows of the result.
            sum_by_theta: those (\\*, d, P) of one more value, which all parameters go into: the
                last row.
        """
        *layers, last = self.linears
        rows = last.masked().unflatten(0, (self.inputs, self.each))
        last_row = sum_by_theta.flatten(-2).unsqueeze(-2) @ last.masked()
        g = torch.cat([torch.einsum("...dp,dph->...dh", by_theta, rows), last_row], -2)
        for layer, slope in zip(reversed(layers), reversed(slopes), strict=True):
            g = (g * slope.unsqueeze(-2)) @ layer.masked()
        return self._by_input(g.narrow(-1, 0, self.inputs * self.per_input), x)

    def _by_input(self, by_feature: Tensor, x: Tensor) -> Tensor:
        """From derivatives by the features (\\*, d, d · per_input) to those by the inputs."""
        inside = (x.abs() < REACH).to(x.dtype).unsqueeze(-2)
        if self.frequencies is None:
            return by_feature * inside
        wave = x.clamp(-REACH, REACH).unsqueeze(-1) * self.frequencies
        slope = torch.cat([wave.cos() * self.frequencies, -wave.sin() * self.frequencies], -1)
        plain, waves = by_feature.unflatten(-1, (self.inputs, self.per_input)).split(
            [1, self.per_input - 1], -1
        )
        by_input: Tensor = plain.squeeze(-1) + (waves * slope.unsqueeze(-3)).sum(-1)
        return by_input * inside


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
