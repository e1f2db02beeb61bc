"""Base draws that fill space more evenly than chance, and the ELBO from them with its error."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from nfvi.guides import AnyGuide, Base, parts
from nfvi.targets import Target, log_prob_anywhere
from nfvi.utils import check_whole

__all__ = ["REPLICATES", "SobolNoise", "qmc_elbo"]

# An sd over 20 shifts is known to a sixth; each shift is of a set of 1 000, of 20 000 draws in
# all.
REPLICATES = 20


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


@torch.no_grad()
def qmc_elbo(
    guide: AnyGuide, target: Target, n: int, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """ELBO and its standard error by randomised quasi-Monte Carlo; nats.

    One scrambled Sobol set of n points is shifted at random R times. The averages over the R sets
    are independent and each unbiased, so that their mean is the estimate and their sd / √R its
    error, with R − 1 degrees of freedom. The spread of the points within a set is not used: they
    are not independent, and it would say too much. For a smooth integrand in few dimensions the
    error is far below that of R n independent draws.

    Args:
        guide: q, over a base with quantiles; of a mixture each component has a set.
        target: p.
        n: points in a set, at least 2; powers of 2 are the most even.
        replicates: R, at least 2.
        seed: fixes scrambling and shifts.

    Returns:
        The estimate, and its standard error; NaN for both where a draw has no density, and −∞ with
        NaN where the target is 0 at a draw.

    Raises:
        ValueError: ``n`` or ``replicates`` is too small, the dimension too large, or the base has
            no quantile function.
    """
    check_whole("n", n, 2)
    check_whole("replicates", replicates, 2)
    like = torch.empty(0, dtype=guide.dtype, device=guide.device)
    noise = SobolNoise(guide.base, n, guide.dim, seed, like)
    generator = torch.Generator(guide.device).manual_seed(seed)
    averages = [_average(guide, target, noise, generator) for _ in range(replicates)]
    each = torch.stack(averages)
    return float(each.mean()), float(each.std() / replicates**0.5)


def _average(
    guide: AnyGuide, target: Target, noise: SobolNoise, generator: torch.Generator
) -> Tensor:
    """Mean of log p − log q over one shifted set, components by their weights; float64."""
    mixed = parts(guide)
    total = torch.zeros((), dtype=torch.float64, device=guide.device)
    for k, part in enumerate(mixed):
        x, log_q = part(noise.draw(1, generator)[0])
        if len(mixed) > 1:
            log_q = guide.log_prob(x)
        ratio = log_prob_anywhere(target, x).double() - log_q.double()
        weight = getattr(guide, "weights", total.new_ones(1))[k]
        total = total + weight * ratio.mean()
    return total
