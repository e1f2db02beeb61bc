"""Base draws that fill space more evenly than chance: randomised quasi-Monte Carlo."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from nfvi.bases import Base

__all__ = ["SobolNoise"]


class SobolNoise:
    """One scrambled Sobol set of n points, shifted at random, modulo 1, before each use.

    A shift leaves the set as even as it was and each point uniform, so that averages over it are
    unbiased, and their error falls faster than 1/√n where the integrand is smooth. The points of
    one set are not independent: the spread within a set says too much of the error of its mean,
    and the spread over shifts tells it.

    Args:
        base: the distribution of the coordinates; it needs a quantile function.
        n: points in a set.
        dim: d, at most 21 201.
        seed: of the scrambling.
        like: a tensor of the dtype and on the device of the draws.

    Raises:
        ValueError: ``dim`` is too large, or the base has no quantile function.

    Reference:
        Cranley and Patterson, Randomization of number theoretic methods for multiple integration,
        1976. Owen, Scrambling Sobol' and Niederreiter-Xing points, 1998. Buchholz, Wenzel and
        Mandt, Quasi-Monte Carlo variational inference, 2018.
    """

    def __init__(self, base: Base, n: int, dim: int, seed: int, like: Tensor) -> None:
        if dim > SobolEngine.MAXDIM:
            raise ValueError(
                f'draws="qmc" goes up to {SobolEngine.MAXDIM} dimensions, and this target has'
                f' {dim}; use draws="iid"'
            )
        engine = SobolEngine(dim, scramble=True, seed=seed % 2**31)
        self.base, self.dtype, self.seed = base, like.dtype, seed
        self.points = engine.draw(n, dtype=torch.float64).to(like.device)
        base.from_uniform(self.points[:1].clamp(0.25, 0.75))

    def resized(self, n: int) -> SobolNoise:
        """The same scrambling with another number of points."""
        like = self.points.new_empty(0, dtype=self.dtype)
        return SobolNoise(self.base, n, self.points.shape[1], self.seed, like)

    def draw(self, restarts: int, generator: torch.Generator) -> Tensor:
        """Base draws (R, n, d), with a shift of its own for each restart."""
        shape = (restarts, 1, self.points.shape[1])
        device = self.points.device
        shift = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        eps = torch.finfo(torch.float64).eps
        uniform = (self.points + shift).remainder(1).clamp(eps, 1 - eps)
        return self.base.from_uniform(uniform).to(self.dtype)
