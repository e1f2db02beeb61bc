"""The units of a block neural autoregressive flow that lie on the path of their own coordinate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Blocks", "Layer"]


class Layer(NamedTuple):
    """The own paths through a hidden layer, for d coordinates, or for one without dimension d.

    Args:
        sharpness: s > 0 (d, 1, a).
        mixing: Pᵀ (d, a', a), each column of sum 1, for a' units in the layer below; ``None`` in
            the first layer, which has z_i below.
    """

    sharpness: Tensor
    mixing: Tensor | None

    def units(self, below: Tensor, slope: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h = tanh(s u + cross), t = h / s and ∂t/∂z_i in (0, 1], each (d, n, a).

        Args:
            below: t of the layer below (d, n, a'), or z (d, n, 1).
            slope: ∂t/∂z_i of the layer below, of the same shape.
            cross: what comes from the blocks before (d, n, a).
        """
        if self.mixing is not None:
            below, slope = below @ self.mixing, slope @ self.mixing
        h = torch.addcmul(cross, below, self.sharpness).tanh()
        return h, h / self.sharpness, (1 - h * h) * slope


class Blocks(NamedTuple):
    """The own paths of d coordinates, or of one: x_i = σ_i (z_i + Σ_k q_k t_k) + ….

    Args:
        sigma: σ > 0 (d).
        layers: the hidden layers, first one first.
        height: q (d, a, 1).
    """

    sigma: Tensor
    layers: tuple[Layer, ...]
    height: Tensor

    def each(self) -> list[Blocks]:
        """The path of every coordinate."""
        # Split once: indexing in a loop would cost a gradient of full size for each index.
        dim = self.sigma.shape[0]
        layers = [
            [
                Layer(*pair)
                for pair in zip(
                    s.unbind(0), p.unbind(0) if p is not None else [None] * dim, strict=True
                )
            ]
            for s, p in self.layers
        ]
        parts = zip(
            self.sigma.unbind(0), zip(*layers, strict=True), self.height.unbind(0), strict=True
        )
        return [Blocks(*part) for part in parts]

    def reach(self) -> Tensor:
        """What Σ_k q_k t_k stays below (d)."""
        return (self.height.mT.abs() / self.layers[-1].sharpness).sum((-1, -2))

    def own_weights(self) -> list[Tensor]:
        """The diagonal blocks of the network: (d, a, a') to each hidden layer, (d, 1, a) to x."""
        weights, below = [], torch.ones_like(self.layers[0].sharpness[..., :1])
        for sharpness, mixing in self.layers:
            rows = sharpness.mT if mixing is None else sharpness.mT * mixing.mT
            weights.append(rows / below)
            below = sharpness
        return [*weights, self.sigma.view(-1, 1, 1) * self.height.mT / below]
