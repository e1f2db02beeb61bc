"""Learning rate and tempering as functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LearningRate", "Tempering"]

# Not measured: Adam's second moments (decay 0.99) have seen some dozens of gradients by then, and
# a full step before that goes by the first few alone.
WARMUP = 50
# Not measured: a guide that is good already gets worse at the full rate before it gets better.
REVIVAL = 0.3


@dataclass(frozen=True)
class LearningRate:
    """Factors for the learning rate: linear warm-up, then cosine decay to 0, in cycles.

    The first cycle rises to 1; each later one, added by :meth:`extend`, to 0.3, since it starts
    from a fit that is good already.

    Args:
        cycles: (steps, peak) of each cycle.
        hold: steps of the first cycle, warm-up included, that stay at its peak before the decay;
            less than its length.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017.
    """

    cycles: tuple[tuple[int, float], ...]
    hold: int = 0

    @classmethod
    def over(cls, steps: int, hold: int = 0) -> LearningRate:
        """One cycle of so many steps, of which some stay at the peak before the decay."""
        return cls(((steps, 1.0),), hold)

    @property
    def steps(self) -> int:
        """The length of all cycles."""
        return sum(length for length, _ in self.cycles)

    def extend(self, steps: int) -> LearningRate:
        """The same with one more cycle at the end."""
        return LearningRate((*self.cycles, (steps, REVIVAL)), self.hold)

    def __call__(self, step: int) -> float:
        """The factor for a step, counted from 0; 0 after the end."""
        hold = self.hold
        for length, peak in self.cycles:
            if step < length:
                warmup = min(WARMUP, max(length // 10, 1))
                rise = min(1.0, (step + 1) / warmup)
                falling = math.pi * max(step - hold, 0) / (length - hold)
                return peak * rise * 0.5 * (1 + math.cos(falling))
            step, hold = step - length, 0
        return 0.0


class Tempering:
    """β of each restart: rises in a straight line from 0.01 to 1, and stays there.

    Args:
        lengths: steps that the rise takes for each restart; 0 for β = 1 from the start.

    Reference:
        Rezende and Mohamed, Variational inference with normalizing flows, 2015, equation 20.
    """

    start = 0.01

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """β (R) for a step, counted from 0, in the dtype and on the device of ``like``."""
        return torch.tensor(self._values(step), dtype=like.dtype, device=like.device)

    def table(self, first: int, steps: int, dtype: torch.dtype) -> Tensor:
        """β (steps, R) for as many steps from the first one on, on the CPU."""
        rows = [self._values(step) for step in range(first, first + steps)]
        return torch.tensor(rows, dtype=dtype, device="cpu")

    def _values(self, step: int) -> list[float]:
        return [
            1.0 if step >= length else self.start + (1 - self.start) * step / length
            for length in self.lengths
        ]

    def observe(self, step: int, loss: Tensor, elbo: Tensor) -> None:
        """Called with the terms of a step (R, n), counted from 0; nothing follows from them."""

    def keep(self, rows: Tensor) -> Tempering:
        """That of some of the restarts."""
        return Tempering(tuple(self.lengths[row] for row in rows.tolist()))

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of it."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the state from a checkpoint."""
