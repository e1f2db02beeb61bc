"""Many short HMC chains side by side, as one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.targets import Target, log_prob_and_score

__all__ = ["DENSE_LIMIT", "ParallelHMC"]

# NUTS's usual aim; lower is cheaper for the bulk, and gets chains stuck in necks.
TARGET_ACCEPT = 0.8
# Not measured: 4 or 5 steps of half an sd are a third of a Gaussian's period. Fewer are a random
# walk, and more are paid for by all chains, which share their number.
LEAPFROGS = 8
# Ten iterations at acceptance 1 raise the step by a fifth. The mean over two thousand chains has so
# little noise that the gain need not decay, as it must where one chain adapts its own step.
GAIN = 0.1
FIRST_STEP = 0.5
DENSE_LIMIT = 300
"""Dimensions to which the mass is a matrix; above, it is a diagonal, which needs few chains."""


@dataclass
class _Points:
    """Positions (n, d) with log p (n) and its gradient (n, d)."""

    z: Tensor
    log_p: Tensor
    gradient: Tensor


class ParallelHMC:
    """Hamiltonian Monte Carlo for n chains that share one mass matrix and one step size.

    The mass is the inverse of the covariance of the starting points, or of their variances above
    300 dimensions, and the step size follows the mean acceptance of the chains, or of each group of
    them. Each iteration takes 1 to 8 leapfrog steps, all chains the same number, so that no chain
    keeps to one period.

    Args:
        target: the log-density.
        start: where the chains start (n, d); n above d up to 300 dimensions.
        generator: source of momenta and of acceptance.
        scale: by which each coordinate moves (d), in place of that covariance; the chains may be
            few then. In the base space of a guide it is 1; where it is 0 nothing moves.
        groups: of each chain (n), from 0 to G − 1; each has a step size of its own.

    Attributes:
        accept: mean acceptance of the last iteration.
        step_size: in units of the starting points' spread; (G) for groups.
        gradient_evaluations: points at which the gradient was taken.
    """

    def __init__(
        self,
        target: Target,
        start: Tensor,
        generator: torch.Generator,
        *,
        scale: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        self.target, self.generator, self.groups = target, generator, groups
        self.accept, self.gradient_evaluations = 1.0, 0
        self.step_size: float | Tensor = FIRST_STEP
        if groups is not None:
            self.lengths = groups.bincount().to(start)
            self.step_size = FIRST_STEP * torch.ones_like(self.lengths)
        # z moves by L p for momenta p ~ N(0, I): covariance L Lᵀ takes the place of mass⁻¹. L is
        # kept as (d, d), or as its diagonal (d).
        self.scale = _factor(start) if scale is None else scale
        self.points = self._evaluate(start.detach())

    def run(self, iterations: int) -> Iterator[Tensor]:
        """The positions (n, d) after each iteration."""
        for _ in range(iterations):
            self._iterate()
            yield self.points.z

    def _iterate(self) -> None:
        old = self.points
        momentum = torch.randn(
            old.z.shape, generator=self.generator, dtype=old.z.dtype, device=old.z.device
        )
        new, end = self._leapfrog(old, momentum, self._whole(LEAPFROGS))
        energy = (new.log_p - 0.5 * end.square().sum(-1)) - (
            old.log_p - 0.5 * momentum.square().sum(-1)
        )
        chance = energy.nan_to_num(-torch.inf).clamp_max(0).exp()
        uniform = torch.rand(
            chance.shape, generator=self.generator, dtype=chance.dtype, device=chance.device
        )
        moved = uniform < chance
        column = moved.unsqueeze(1)
        self.points = _Points(
            torch.where(column, new.z, old.z),
            torch.where(moved, new.log_p, old.log_p),
            torch.where(column, new.gradient, old.gradient),
        )
        self.accept = float(chance.mean())
        self.step_size = self.step_size * self._change(chance)

    def _change(self, chance: Tensor) -> float | Tensor:
        """The factor by which the step size changes, or that of each group (G)."""
        if self.groups is None:
            return float(torch.tensor(GAIN * (self.accept - TARGET_ACCEPT)).exp())
        rate = torch.zeros_like(self.lengths).index_add(0, self.groups, chance) / self.lengths
        return torch.where(self.lengths > 0, GAIN * (rate - TARGET_ACCEPT), 0).exp()

    def _step(self) -> float | Tensor:
        """The step size, or that of each chain (n, 1)."""
        if self.groups is None:
            return self.step_size
        return torch.as_tensor(self.step_size)[self.groups].unsqueeze(1)

    def _leapfrog(self, points: _Points, momentum: Tensor, steps: int) -> tuple[_Points, Tensor]:
        h = self._step()
        momentum = momentum + 0.5 * h * self._pull(points)
        for step in range(steps):
            points = self._evaluate(points.z + h * self._times_scale(momentum))
            size = h if step < steps - 1 else 0.5 * h
            momentum = momentum + size * self._pull(points)
        return points, momentum

    def _pull(self, points: _Points) -> Tensor:
        """Lᵀ ∇log p of each chain (n, d)."""
        gradient = points.gradient
        return gradient * self.scale if self.scale.dim() == 1 else gradient @ self.scale

    def _times_scale(self, momentum: Tensor) -> Tensor:
        """L p of each chain (n, d)."""
        return momentum * self.scale if self.scale.dim() == 1 else momentum @ self.scale.T

    def _evaluate(self, z: Tensor) -> _Points:
        self.gradient_evaluations += len(z)
        log_p, gradient = log_prob_and_score(self.target, z)
        # A chain that has left the support is sent back by its energy; its gradient must not
        # spread to nan on the way.
        return _Points(z.detach(), log_p, gradient.nan_to_num(0.0, 0.0, 0.0))

    def _whole(self, most: int) -> int:
        device = self.generator.device
        return int(torch.randint(1, most + 1, (), generator=self.generator, device=device))


def _factor(start: Tensor) -> Tensor:
    """L (d, d) with L Lᵀ the covariance of points (n, d); their sds (d) above 300 dimensions."""
    if start.shape[1] > DENSE_LIMIT:
        return start.double().std(0).clamp_min(torch.finfo(start.dtype).tiny).to(start)
    centred = (start - start.mean(0)).double()
    covariance = centred.T @ centred / (len(start) - 1)
    jitter = 1e-6 * covariance.diagonal().diag_embed()
    factor: Tensor = torch.linalg.cholesky(covariance + jitter).to(start)
    return factor
