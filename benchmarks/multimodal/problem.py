"""A log-density with what is known of it, which no fit is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nfvi import LogDensity

__all__ = ["Modes", "Moments", "Problem"]

LEAST_SHARE = 0.1
"""A mode is found where draws give it at least a tenth of its mass."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Parts of a target's mass, in G groups of K: one group, or one for each coordinate.

    Attributes:
        masses: of each part (G, K), float64; a row sums to 1.
        memberships: probabilities (n, G, K) that points z (n, d) belong to the parts.
    """

    masses: Tensor
    memberships: Callable[[Tensor], Tensor]

    def found(self, z: Tensor, weights: Tensor) -> float:
        """Mass of the parts that draws z (n, d) with weights (n) found, over all groups."""
        shares = torch.einsum("n,ngk->gk", weights, self.memberships(z).nan_to_num(0.0))
        there = shares >= LEAST_SHARE * self.masses
        return float((self.masses * there).sum(1).prod())


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and sds (d), float64; NaN in a coordinate that is not compared.

    Attributes:
        mean: of each coordinate.
        sd: likewise.
    """

    mean: Tensor
    sd: Tensor

    def errors(self, z: Tensor, weights: Tensor) -> tuple[float, float]:
        """Errors of the means in sds, and of the sds as a share: the largest of each.

        Args:
            z: draws (n, d).
            weights: of the draws (n), with the sum 1.
        """
        known = self.sd.isfinite()
        z, mean, sd = z[:, known], self.mean[known], self.sd[known]
        found = weights @ z
        spread = (weights @ (z - found).square()).sqrt()
        return float(((found - mean) / sd).abs().max()), float((spread / sd - 1).abs().max())


@dataclass(frozen=True, eq=False)
class Problem:
    """A log-density with what is known of it.

    Attributes:
        dim: d.
        log_prob: log p at points (n, d), unnormalised: (n).
        log_z: log ∫ p; ``None`` where it is not known.
        log_z_se: its standard error; 0 where it is exact.
        moments: means and sds; ``None`` where they are not known.
        modes: parts that draws may miss; ``None`` where there are none to name.
        sample: n exact draws (n, d) in float64, from a generator; ``None`` without a sampler.
        name: for tables.
    """

    dim: int
    log_prob: Callable[[Tensor], Tensor] = field(repr=False)
    log_z: float | None = None
    log_z_se: float = 0.0
    moments: Moments | None = field(default=None, repr=False)
    modes: Modes | None = field(default=None, repr=False)
    sample: Callable[[int, torch.Generator], Tensor] | None = field(default=None, repr=False)
    name: str = ""

    def named(self, name: str) -> Problem:
        """The same under a name."""
        return replace(self, name=name)

    def target(self) -> LogDensity:
        """What is fitted: the log-density alone, without its log Z, moments, modes or sampler."""
        return LogDensity(self.log_prob, self.dim, name=self.name, batched=True)
