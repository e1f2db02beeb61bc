"""Targets whose log-density is a sum over rows of data, of which a step takes a few."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from nfvi.targets.base import Target

__all__ = ["MinibatchTarget", "affordable", "random_rows", "takes_rows"]

# Rows times points of one look at all rows: 20 s on one core where each takes 20 ns, as those of a
# regression do. 10 000 points go to 100 000 rows, 1 000 to a million.
LOOK = 1_000_000_000
# A k-hat wants some hundreds of weights.
FEWEST = 200


class MinibatchTarget(Target):
    """A target log p(z) = f(z) + Σ g(z, row) over N rows, with an unbiased estimate of it.

    :meth:`~nfvi.Target.log_prob` is that of all rows.

    Attributes:
        rows: N; 0 where each step takes all there is.
        batch_size: B, how many of them a step takes.
    """

    rows: int = 0
    batch_size: int = 0

    @abstractmethod
    def draw_rows(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What stands for B random rows, none of them twice: tensors whose shapes do not vary."""

    @abstractmethod
    def log_prob_of(self, z: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """f(z) + N/B Σ g(z, row) over some rows (n), differentiable, at points z (n, d)."""

    @abstractmethod
    def numbers_per_draw(self) -> float:
        """How many numbers the operations of a step write for one draw."""

    @abstractmethod
    def steps_of_a_look(self, n_mc: int) -> float:
        """What log p of all rows at one point costs, in steps of so many draws."""


def takes_rows(target: Target) -> TypeGuard[MinibatchTarget]:
    """Whether a step of a fit sees but a few rows of a target."""
    return isinstance(target, MinibatchTarget) and target.rows > 0


def random_rows(rows: int, count: int, generator: torch.Generator) -> np.ndarray:
    """The numbers of some rows, in rising order and none twice."""
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    if count == rows:
        return np.arange(rows)
    # NumPy's takes work in proportion to the count, and torch.randperm to all rows.
    random = np.random.default_rng(int(seed))
    return np.sort(random.choice(rows, count, replace=False, shuffle=False))


def affordable(target: Target, most: int, share: float = 1.0) -> int:
    """How many of some points all rows are worth looking at for: fewer where there are many rows.

    Args:
        target: log p; one that is no sum over rows takes all points.
        most: points asked for.
        share: of the usual work.
    """
    if not takes_rows(target):
        return most
    return min(most, max(int(share * LOOK / target.rows), FEWEST))
