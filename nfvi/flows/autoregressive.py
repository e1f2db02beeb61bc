"""What autoregressive flows share: one pass in one direction, a sequence in the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfvi.flows.base import Flow
from nfvi.flows.networks import Features, MaskedConditioner, Walk
from nfvi.flows.numerics import in_range

__all__ = ["Autoregressive", "Derivatives"]


class Derivatives(NamedTuple):
    """T' (\\*), ∂T/∂θ (\\*, P), ∂ log T'/∂u (\\*) and ∂ log T'/∂θ (\\*, P)."""

    slope: Tensor
    value_by_theta: Tensor
    log_slope_by_u: Tensor
    log_slope_by_theta: Tensor


class Autoregressive(Flow):
    """v_i = T(u_i; θ_i(u_<i)) with T increasing in u_i; layers of even and odd index take turns.

    Layers of even index go through the coordinates from first to last, those of odd index from
    last to first. A subclass with ``fast = "sampling"`` maps u = z to v = x; one with
    ``fast = "density"`` maps u = x to v = z. The other direction solves one coordinate after the
    other.

    Args:
        dim: d.
        hidden: units of each hidden layer of the conditioner.
        activation: of the conditioner.
        features: of the conditioner, see :class:`~nfvi.flows.networks.conditioner.Conditioner`.
        alternate: whether layers of odd index turn the order round; if not, all go from first
            to last.
        common: see :class:`Flow`.
    """

    takes_context = True
    size: int
    """P, the parameters of T."""

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int],
        activation: str,
        features: Features,
        alternate: bool,
        **common: Any,
    ) -> None:
        super().__init__(dim, **common)
        self.backwards = alternate and self.index % 2 == 1
        order = self._sequence()
        self.conditioner = MaskedConditioner(
            self, self.size, order, hidden=hidden, activation=activation, features=features
        )

    @abstractmethod
    def _apply_to(self, u: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """T(u; θ) and log T'(u; θ) for u (\\*) and raw parameters θ (\\*, P), 0 at the identity."""

    @abstractmethod
    def _solve(self, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """u with T(u; θ) = v, and log du/dv, for v (\\*) and θ (\\*, P)."""

    @abstractmethod
    def _derivatives(self, u: Tensor, theta: Tensor) -> Derivatives:
        """Those of T and of log T' at u (\\*) and θ (\\*, P)."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.fast == "sampling":
            return self._in_one_pass(z, context)
        return self._in_sequence(z, context)

    def inverse(
        self, x: Tensor, z: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.fast == "density":
            return self._in_one_pass(x, context)
        if z is None:
            return self._in_sequence(x, context)
        return self._from_preimage(x, z, context)

    def _in_one_pass(self, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        v, log_slope = self._apply_to(u, self.conditioner.parameters_of(u, context))
        return v, log_slope.sum(-1)

    def _in_sequence(self, v: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        walk = Walk(self.conditioner, v, context)
        found: list[Tensor] = [v] * self.dim
        ladj = v.new_zeros(v.shape[:-1])
        columns = v.unbind(-1)
        for i in self._sequence():
            u, log_slope = self._solve(columns[i], walk.parameters_of(i))
            # Every coordinate feeds those after it, and so the exact derivatives may grow
            # exponentially with d.
            found[i] = in_range(u)
            ladj = ladj + log_slope
            walk.add(i, found[i])
        return torch.stack(found, -1), ladj

    def _sequence(self) -> Sequence[int]:
        return range(self.dim - 1, -1, -1) if self.backwards else range(self.dim)

    def _from_preimage(self, v: Tensor, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """u with its gradients by the implicit function theorem: du = J⁻¹ (dv − ∂T/∂θ dθ).

        The derivatives by u are taken by hand, without a graph: this is half of the work of a
        step with the path gradient.
        """
        u = u.detach()
        theta, slopes = self.conditioner.taped(u, context)
        again, log_slope = self._apply_to(u, theta)
        with torch.no_grad():
            d = self._derivatives(u, theta)
            rows = self.conditioner.pull_back(u, slopes, d.value_by_theta, d.log_slope_by_theta)
            # dv/du, triangular in the order of the layer, and d log|det dv/du| / du.
            jacobian = rows[..., :-1, :] + torch.diag_embed(d.slope)
            by_u = rows[..., -1, :] + d.log_slope_by_u
        step = torch.linalg.solve_triangular(
            jacobian, (v - again).unsqueeze(-1), upper=self.backwards
        )
        step = in_range(step.squeeze(-1))
        return u + step, -(log_slope.sum(-1) + (by_u * step).sum(-1))
