"""Targets whose log-density is a sum over rows of data, of which a step takes a few."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from nfvi.targets.base import Target

__all__ = ["MinibatchTarget", "affordable"]

# Rows times points of one look at all rows: 20 s on one core where each takes 20 ns, as those of a
# regression do. 10 000 points go to 100 000 rows, 1 000 to a million.
LOOK = 1_000_000_000
# A k-hat wants some hundreds of weights.
FEWEST = 200


class MinibatchTarget(Target):
    """A target log p(z) = f(z) + Σ g(z, row) over N rows, with an unbiased estimate of it.

    :meth:`~nfvi.Target.log_prob` is that of all rows.

    Attributes:
        rows: N.
        batch_size: B, how many of them a step takes.
    """

    rows: int
    batch_size: int

    @abstractmethod
    def draw_rows(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What stands for B random rows, none of them twice: tensors whose shapes do not vary."""

    @abstractmethod
    def log_prob_of(self, z: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """f(z) + N/B Σ g(z, row) over some rows (n), differentiable, at points z (n, d)."""

    @abstractmethod
    def numbers_per_draw(self) -> float:
        """How many numbers the operations of a step write for one draw."""


def affordable(target: Target, most: int, share: float = 1.0) -> int:
    """How many of some points all rows are worth looking at for: fewer where there are many rows.

    Args:
        target: log p; one that is no sum over rows takes all points.
        most: points asked for.
        share: of the usual work.
    """
    if not isinstance(target, MinibatchTarget):
        return most
    return min(most, max(int(share * LOOK / target.rows), FEWEST))
