"""A mixture of Gaussians fitted to weighted points by expectation–maximisation."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

__all__ = ["NormalMixture", "features", "fitted", "split"]

DF = 3.0
"""Of the t distributions that are drawn beside the Gaussians."""
LEAST_WEIGHT = 1e-5
POINTS_EACH = 2
"""Effective points for each of d + 1: with fewer a covariance is about to collapse."""
RIDGE = 1e-6
"""Of a component's own mean variance."""
EDGE = 1e-12
"""Of uniform numbers that become normal ones: 7 sds."""
CHUNK = 4_096
"""Points at once, whose numbers stay in a cache: three times as fast as all of them."""
APART, LEFT = 0.6, 0.9
"""Halves of a component go 0.6 sds to each side, which takes 0.36 of its variance along that axis;
nine tenths of this is taken off, so that the two overlap a little more than the one they were."""


class NormalMixture:
    """Σ_k w_k N(μ_k, C_k), without what has no density: weights of 0, covariances of no rank.

    All components are evaluated by one product: log w_k + log N(x; μ_k, C_k) is linear in 1, x and
    the products of its coordinates. The points should be near 0 and of size 1.

    Attributes:
        coefficients: of these features (F, K).
        heights: log w_k + log N(μ_k; μ_k, C_k) (K).

    Args:
        weights: w (K); divided by the sum of those that are kept.
        loc: μ (K, d).
        covariance: C (K, d, d).
    """

    def __init__(self, weights: Tensor, loc: Tensor, covariance: Tensor) -> None:
        tril, failed = torch.linalg.cholesky_ex(covariance)
        kept = (failed == 0) & tril.isfinite().flatten(1).all(1) & (weights > 0)
        kept &= loc.isfinite().all(1)
        self.weights = weights[kept] / weights[kept].sum()
        self.loc, self.tril = loc[kept], tril[kept]
        self.size, self.dim = self.loc.shape
        precision = torch.cholesky_inverse(self.tril)
        turned = (precision @ self.loc.unsqueeze(2)).squeeze(2)
        rows, columns = torch.triu_indices(self.dim, self.dim, device=loc.device)
        squares = -0.5 * precision[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0)
        volume = self.tril.diagonal(dim1=1, dim2=2).log().sum(1)
        self.heights = self.weights.log() - volume - 0.5 * self.dim * math.log(2 * math.pi)
        constants = self.heights - 0.5 * (turned * self.loc).sum(1)
        self.coefficients = torch.cat([constants.unsqueeze(1), turned, squares], 1).mT.contiguous()

    @property
    def parameters(self) -> int:
        """How many numbers it has to be fitted by."""
        return self.size * len(self.coefficients)

    @property
    def covariance(self) -> Tensor:
        """C (K, d, d)."""
        covariance: Tensor = self.tril @ self.tril.mT
        return covariance

    def log_both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density (n) of the mixture, and of that of t distributions in the Gaussians' place.

        Args:
            features: of n points (n, F).
        """
        half = 0.5 * (DF + self.dim)
        constant = math.lgamma(half) - math.lgamma(0.5 * DF) + 0.5 * self.dim * math.log(2 / DF)
        own, wide = [], []
        for piece in features.split(CHUNK):
            logs = piece @ self.coefficients
            own.append(logs.logsumexp(1))
            squares = (2 * (self.heights - logs)).clamp_min_(0)
            far = self.heights + constant - half * torch.log1p(squares / DF)
            wide.append(far.logsumexp(1))
        return torch.cat(own), torch.cat(wide)

    def sample(
        self, n: int, generator: torch.Generator, wide: bool = False
    ) -> tuple[Tensor, Tensor]:
        """n draws (n, d), of t distributions if ``wide``, and the component of each (n).

        Each component has its share of the draws to within one, and a stretch of one scrambled
        Sobol sequence, made normal: half as many draws do as of independent ones.
        """
        dtype, device = self.loc.dtype, generator.device
        normal = partial(torch.randn, generator=generator, dtype=dtype, device=device)
        start = torch.rand((), generator=generator, dtype=dtype, device=device)
        edges = (torch.arange(n, dtype=dtype, device=device) + start) / n
        which = torch.searchsorted(self.weights.cumsum(0), edges).clamp_max_(self.size - 1)
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        even = SobolEngine(self.dim, scramble=True, seed=seed).draw(n, dtype=torch.float64)
        noise = torch.special.ndtri(even.clamp(EDGE, 1 - EDGE)).to(device, dtype)
        if wide:
            # χ² as a sum of squares: torch draws no gamma variables from a generator.
            chi2 = normal((n, int(DF))).square().sum(1)
            noise *= (DF / chi2).sqrt().unsqueeze(1)
        return self.loc[which] + (self.tril[which] @ noise.unsqueeze(2)).squeeze(2), which


def features(x: Tensor) -> Tensor:
    """1, x and the products of two coordinates of points (n, d): (n, 1 + d + d (d + 1) / 2)."""
    rows, columns = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, rows] * x[:, columns]], 1)


def fitted(mixture: NormalMixture, points: Tensor, omega: Tensor, steps: int) -> NormalMixture:
    """The mixture after steps of EM on weighted points; it maximises Σ_i ω_i log q(x_i).

    Components of weight below 1e-5, or of fewer than 2 (d + 1) effective points, are dropped.

    Args:
        mixture: the start.
        points: their features (n, F).
        omega: ω (n), of sum 1.
        steps: how many.
    """
    for _ in range(steps):
        sums = torch.zeros_like(mixture.coefficients)
        squares = torch.zeros_like(mixture.weights)
        for piece, share in zip(points.split(CHUNK), omega.split(CHUNK), strict=True):
            shares = (piece @ mixture.coefficients).softmax(1).mul_(share.unsqueeze(1))
            sums.addmm_(piece.mT, shares)
            squares += shares.square().sum(0)
        weights = sums[0]
        effective = weights.square() / squares
        kept = (effective > POINTS_EACH * (mixture.dim + 1)) & (weights > LEAST_WEIGHT)
        if not bool(kept.any()):
            break
        mixture = _of_moments(weights[kept], sums[1:, kept].mT, mixture.dim)
    return mixture


def _of_moments(weights: Tensor, moments: Tensor, dim: int) -> NormalMixture:
    """The mixture of weights (K) and the sums of coordinates and their products (K, F − 1)."""
    means = moments / weights.unsqueeze(1)
    loc = means[:, :dim]
    rows, columns = torch.triu_indices(dim, dim, device=means.device)
    second = means.new_empty(len(means), dim, dim)
    second[:, rows, columns] = second[:, columns, rows] = means[:, dim:]
    covariance = second - loc.unsqueeze(2) * loc.unsqueeze(1)
    ridge = RIDGE * covariance.diagonal(dim1=1, dim2=2).mean(1)
    return NormalMixture(
        weights, loc, covariance + ridge[:, None, None] * torch.eye(dim).to(covariance)
    )


def split(mixture: NormalMixture, most: int, first: Tensor | None = None) -> NormalMixture:
    """Twice the components, or up to a most, each halved along its longest axis.

    Args:
        mixture: the components.
        most: how many there may be.
        first: (K), those that are highest come first; default weight times sd along that axis.
    """
    count = min(most - mixture.size, mixture.size)
    if count <= 0:
        return mixture
    covariance = mixture.covariance
    lengths, axes = torch.linalg.eigh(covariance)
    longest = lengths[:, -1].sqrt()
    first = mixture.weights * longest if first is None else first
    order = first.argsort(descending=True, stable=True)
    halved, whole = order[:count], order[count:]
    step = APART * longest[halved, None] * axes[halved, :, -1]
    rest = covariance[halved] - LEFT * step.unsqueeze(2) * step.unsqueeze(1)
    half = 0.5 * mixture.weights[halved]
    return NormalMixture(
        torch.cat([mixture.weights[whole], half, half]),
        torch.cat([mixture.loc[whole], mixture.loc[halved] + step, mixture.loc[halved] - step]),
        torch.cat([covariance[whole], rest, rest]),
    )
