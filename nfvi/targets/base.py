"""What a target is: an unnormalised log-density on unconstrained space."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nfvi.errors import TargetError

__all__ = ["Target"]


class Target(ABC):
    """An unnormalised log-density log p(z) on R^d, with the map to what the user calls the sites.

    Attributes:
        dim: d, the dimension of the unconstrained space.
        name: how tables and figures call it.
        log_normalizer: log ∫ exp(log p(z)) dz where it is known, else ``None``.
        named: whether the sites are those of a model; ``Fit.sample`` then returns a dict.
        batching: ``"loop"`` where a batch is evaluated point by point, which is slow.
    """

    dim: int
    name: str
    log_normalizer: float | None = None
    named: bool = False
    batching: str = "batch"

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density at a batch of points z (n, d): (n,), differentiable, up to a constant."""

    def check(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        """Try the target out before a long run; a target that can find faults raises here.

        Raises:
            TargetError: it cannot be used in this dtype or on this device.
        """
        return None

    @abstractmethod
    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """The sites, by name, at a batch of points z (n, d): each (n, \\*event)."""

    def on_edge(self, z: Tensor) -> Tensor:
        """Whether a site's value at z (n, d) was rounded to an edge of its support: (n,) bool."""
        return torch.zeros(len(z), dtype=torch.bool, device=z.device)

    @property
    def has_sampler(self) -> bool:
        """Whether :meth:`sample` gives exact draws."""
        return False

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Exact independent draws (n, d).

        Raises:
            TargetError: this target has no exact sampler.
        """
        raise TargetError(
            f"target {self.name!r} has no exact sampler; use nuts(target) for draws from it"
        )
