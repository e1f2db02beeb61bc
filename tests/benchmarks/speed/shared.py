"""Pieces that several tests of benchmarks/speed use."""

from __future__ import annotations

import time

import torch

__all__ = ["Steady", "points"]


def points(dim: int, n: int = 50) -> torch.Tensor:
    return 2 * torch.randn(n, dim, generator=torch.Generator().manual_seed(1))


class Steady:
    """Fits that end at a gap for each length, after a pause."""

    lengths = (10, 20, 40, 80)

    def __init__(self, gaps: list[float], seconds: float = 0.0) -> None:
        self.gaps, self.seconds, self.ran = gaps, seconds, 0

    def run(self, steps: int | None, seed: int) -> None:
        self.ran += 1
        time.sleep(self.seconds)

    def gap(self) -> float:
        return self.gaps[self.ran - 1]
