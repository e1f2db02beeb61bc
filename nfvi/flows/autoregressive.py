"""What autoregressive flows share: one pass in one direction, a sequence in the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfvi.flows.base import Flow
from nfvi.flows.networks import Features, MaskedConditioner, Walk
from nfvi.flows.numerics import in_range, solve_across

__all__ = ["Autoregressive", "Derivatives"]


class Derivatives(NamedTuple):
    """T' (\\*, n), ∂T/∂θ (\\*, P, n), ∂ log T'/∂u (\\*, n) and ∂ log T'/∂θ (\\*, P, n)."""

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

    Within, draws are the last axis: of u (d, n) and of the parameters θ (d, P, n).

    Args:
        dim: d.
        hidden: units of each hidden layer of the conditioner.
        activation: of the conditioner.
        features: of the conditioner, see :class:`~nfvi.flows.networks.network.Network`.
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
        self.conditioner = MaskedConditioner(
            self,
            self.size,
            backwards=self.backwards,
            hidden=hidden,
            activation=activation,
            features=features,
        )

    @abstractmethod
    def _apply_to(self, u: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """T(u; θ) and log T'(u; θ) for u (\\*, n) and raw θ (\\*, P, n), 0 at the identity."""

    @abstractmethod
    def _solve(self, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """u with T(u; θ) = v, and log du/dv, for v (\\*, n) and θ (\\*, P, n)."""

    @abstractmethod
    def _derivatives(self, u: Tensor, theta: Tensor) -> Derivatives:
        """Those of T and of log T' at u (\\*, n) and θ (\\*, P, n)."""

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
        across = _across(u)
        v, log_slope = self._apply_to(across, self.conditioner(across, _across(context)))
        return _back(v, u), log_slope.sum(0).reshape(u.shape[:-1])

    def _in_sequence(self, v: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        across = _across(v)
        walk = Walk(self.conditioner, across, _across(context))
        columns = across.unbind()
        found = list(columns)
        ladj = torch.zeros_like(columns[0])
        for i in self._sequence():
            u, log_slope = self._solve(columns[i], walk.parameters_of(i))
            # Every coordinate feeds those after it, and so the exact derivatives may grow
            # exponentially with d.
            found[i] = in_range(u)
            ladj = ladj + log_slope
            walk.add(i, found[i])
        return _back(torch.stack(found), v), ladj.reshape(v.shape[:-1])

    def _sequence(self) -> Sequence[int]:
        return range(self.dim - 1, -1, -1) if self.backwards else range(self.dim)

    def _from_preimage(self, v: Tensor, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """u with its gradients by the implicit function theorem: du = J⁻¹ (dv − ∂T/∂θ dθ).

        The derivatives by u are taken by hand, without a graph: this is half of the work of a
        step with the path gradient.
        """
        across = _across(u.detach())
        theta, slopes = self.conditioner.taped(across, _across(context))
        again, log_slope = self._apply_to(across, theta)
        with torch.no_grad():
            d = self._derivatives(across, theta)
            rows = self.conditioner.pull_back(
                across, slopes, d.value_by_theta, d.log_slope_by_theta
            )
            # What is off the diagonal of dv/du, and d log|det dv/du| / du.
            below, by_u = rows[:-1], rows[-1].mT + d.log_slope_by_u
        step = solve_across(d.slope, below, _across(v) - again, upper=self.backwards)
        step = in_range(step)
        ladj = -(log_slope.sum(0) + (by_u * step).sum(0))
        return _back(across + step, v), ladj.reshape(v.shape[:-1])


def _across(x: Any) -> Any:
    """x (\\*, d) as (d, n): all of one coordinate side by side. ``None`` stays."""
    return None if x is None else x.reshape(-1, x.shape[-1]).mT.contiguous()


def _back(x: Tensor, like: Tensor) -> Tensor:
    """x (d, n) in the shape of ``like`` (\\*, d), and row by row: a user's target may view it."""
    return x.mT.contiguous().view(like.shape)
