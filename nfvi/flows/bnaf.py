"""Block neural autoregressive flow: a network that is monotone along each coordinate's own path."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from nfvi.flows.affine import INVERSE_SOFTPLUS_1
from nfvi.flows.base import Flow
from nfvi.flows.networks import ContextNetwork, MaskedLinear
from nfvi.flows.numerics import LARGEST, Blocks, Layer, soft_bound, solve_rows, walk
from nfvi.flows.registry import register

__all__ = ["BlockAutoregressive"]

# Both keep quotients in range, t = h / s and the inverse's slope 1000 / σ: nearer to 0 float32
# loses digits there, and well above it units could not be straight, nor the map flat.
LEAST_SHARPNESS = 1e-3
LEAST_SLOPE = 1e-3
# Not measured: at d = 10, two layers of 1000 units a block have 10⁸ weights between them, 0.4 GB.
MOST_UNITS = 1000


@register("bnaf", help="σ_i (z_i + Σ_k q_k t_k(z_≤i)) + l_i(z_<i), units t_k increasing in z_i")
class BlockAutoregressive(Flow):
    """Block neural autoregressive flow: one network with d blocks of units in each hidden layer.

    Block i sees itself through positive weights and the blocks before it through any, so that
    each of its units increases in z_i:

    - t_k = tanh(s_k u_k + c_k) / s_k, with s_k > 0 and c_k linear in the tanh of the blocks
      before i one layer below; u_k = z_i in the first layer and Σ_j P_kj t_j over the own block
      above, each row of P a softmax. The slope of t_k in z_i is in (0, 1].
    - x_i = σ_i (z_i + Σ_k q_k t_k) + l_i, with l_i linear in z and the last tanh of the blocks
      before i, and q_k > (10⁻³ − 1) / a for a units, so that ∂x_i/∂z_i > 10⁻³ σ_i.

    log|det| = Σ log σ_i + log1p(Σ_k q_k ∂t_k/∂z_i): slopes are products and weighted means of
    numbers up to 1, and need no logarithms on the way. Layers of even index go through the
    coordinates from first to last, those of odd index from last to first. The inverse is a
    bracketed scalar root find for one coordinate after the other, with the gradient by the
    implicit function theorem.

    Args:
        dim: d.
        hidden: a, the units of a block in each hidden layer, each from 1 to 1000; the weights
            from layer to layer are (d a)² / 2 in number.
        common: see :class:`Flow`. σ starts at 1, q and l at 0, moved by ``jitter`` times standard
            normal draws over the root of the number of inputs; the units start at random. With a
            context a network of it is added to c in the first layer and to l.

    Raises:
        ValueError: ``hidden`` is empty or has something else in it.

    Reference:
        De Cao, Titov and Aziz, Block neural autoregressive flow, 2019.
    """

    fast = "sampling"
    takes_context = True

    def __init__(self, dim: int, *, hidden: Sequence[int] = (8,), **common: Any) -> None:
        super().__init__(dim, **common)
        _check(hidden)
        self.hidden = list(hidden)
        self.rho = nn.Parameter(INVERSE_SOFTPLUS_1 + self.jitter * self.noise(dim))
        self.height = nn.Parameter(self.jitter * self.noise(dim, hidden[-1]))
        self.sharpness = nn.Parameter(INVERSE_SOFTPLUS_1 + 0.5 * self.noise(dim, sum(hidden)))
        self.mixing = nn.ParameterList(
            self.noise(dim, below, units) for below, units in itertools.pairwise(hidden)
        )
        self.layers = nn.ModuleList(self._layers())
        self.network = ContextNetwork(self, dim * (hidden[0] + 1)) if self.context_dim else None

    def _layers(self) -> list[MaskedLinear]:
        """The network without its diagonal blocks: z → units → … → units, and with z → x."""
        rank = torch.tensor([*self._order()]).argsort()
        *ranks, last = [rank, *(rank.repeat_interleave(units) for units in self.hidden)]
        ends = [*ranks[1:], last, rank]
        layers = []
        for below, above in zip([*ranks, torch.cat([last, rank])], ends, strict=True):
            scale = self.jitter if above is rank else 1.0
            mask = above[:, None] > below
            layers.append(MaskedLinear(self.noise, len(below), len(above), mask, scale))
        return layers

    def _order(self) -> range:
        return range(self.dim) if self.index % 2 == 0 else range(self.dim - 1, -1, -1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope, _ = self._push(z.reshape(-1, self.dim), *self._parts(context))
        return x.reshape(z.shape), log_slope.sum(-1).reshape(z.shape[:-1])

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, parts = x.reshape(-1, self.dim), self._parts(context)
        if z is None:
            found, ladj = walk(rows, self._order(), *parts)
        else:
            found = self._from_preimage(rows, z.detach().reshape(rows.shape), *parts)
            ladj = self._push(found, *parts)[1].sum(-1)
        return found.reshape(x.shape), -ladj.reshape(x.shape[:-1])

    def _parts(self, context: Tensor | None) -> tuple[Blocks, list[Tensor], list[Tensor]]:
        """The own paths, and between them the weights and what is added to each layer."""
        layers: list[MaskedLinear] = list(self.layers)  # type: ignore[arg-type]
        starts: list[Tensor] = [layer.bias for layer in layers]
        if self.network is not None:
            added = self.network(context).reshape(-1, starts[0].shape[0] + self.dim)
            starts[0] = starts[0] + added[:, : -self.dim]
            starts[-1] = starts[-1] + added[:, -self.dim :]
        return self._blocks(), [layer.masked() for layer in layers], starts

    def _blocks(self) -> Blocks:
        sharpness = (softplus(self.sharpness) + LEAST_SHARPNESS).unsqueeze(1)
        mixing = [None, *(raw.softmax(1) for raw in self.mixing)]
        layers = zip(sharpness.split(self.hidden, -1), mixing, strict=True)
        least = (1 - LEAST_SLOPE) / self.hidden[-1]
        height = least * soft_bound(self.height, LARGEST).expm1().unsqueeze(-1)
        sigma = softplus(self.rho).clamp_min(torch.finfo(self.rho.dtype).tiny)
        return Blocks(sigma, tuple(itertools.starmap(Layer, layers)), height)

    def _push(
        self, z: Tensor, blocks: Blocks, weights: list[Tensor], starts: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """x and log ∂x_i/∂z_i, each (n, d), and the units of each layer (n, d a)."""
        t = z.mT.unsqueeze(-1)
        slope, below, units = torch.ones_like(t), z, []
        for layer, weight, start in zip(blocks.layers, weights, starts, strict=False):
            cross = torch.addmm(start, below, weight.mT).unflatten(1, (self.dim, -1))
            h, t, slope = layer.units(t, slope, cross.transpose(0, 1))
            below = h.transpose(0, 1).flatten(1)
            units.append(below)
        shift = torch.addmm(starts[-1], torch.cat([below, z], 1), weights[-1].mT)
        x = torch.addcmul(shift, z + (t @ blocks.height).squeeze(-1).mT, blocks.sigma)
        log_slope = (slope @ blocks.height).squeeze(-1).mT.log1p()
        return x, blocks.sigma.log() + log_slope, units

    def _from_preimage(
        self, x: Tensor, z: Tensor, blocks: Blocks, weights: list[Tensor], starts: list[Tensor]
    ) -> Tensor:
        """z with its gradients by the implicit function theorem: dz = J⁻¹ (dx − ∂f/∂θ dθ)."""
        again, _, units = self._push(z, blocks, weights, starts)
        with torch.no_grad():
            jacobian = _jacobian(units, blocks, weights)
        change = x - again
        change = (change - change.detach()).unsqueeze(1)
        return z + solve_rows(jacobian, change, upper=self.index % 2 == 1).squeeze(1)


def _jacobian(units: list[Tensor], blocks: Blocks, weights: list[Tensor]) -> Tensor:
    """dx/dz (n, d, d), triangular in the order of the layer."""
    dim = blocks.sigma.shape[0]
    eye = torch.eye(dim, dtype=blocks.sigma.dtype, device=blocks.sigma.device)
    *inner, last = blocks.own_weights()
    full = [w + _embedded(own, eye) for w, own in zip(weights, inner, strict=False)]
    jacobian, *middle = full
    jacobian = (1 - units[0].square()).unsqueeze(-1) * jacobian
    for weight, h in zip(middle, units[1:], strict=True):
        jacobian = (1 - h.square()).unsqueeze(-1) * (weight @ jacobian)
    by_units = weights[-1][:, :-dim] + _embedded(last, eye)
    return by_units @ jacobian + weights[-1][:, -dim:] + blocks.sigma.diag()


def _embedded(blocks: Tensor, eye: Tensor) -> Tensor:
    """Blocks (d, a, b) on the diagonal of a matrix (d a, d b)."""
    return (blocks.unsqueeze(2) * eye[:, None, :, None]).flatten(2).flatten(0, 1)


def _check(hidden: Sequence[int]) -> None:
    for units in hidden or [0]:
        whole = isinstance(units, int) and not isinstance(units, bool)
        if not whole or not 1 <= units <= MOST_UNITS:
            raise ValueError(
                f"hidden={list(hidden)!r}: the units of a block in each hidden layer, at least one"
                f" layer, must be whole numbers from 1 to {MOST_UNITS}, as in hidden=[8]"
            )
