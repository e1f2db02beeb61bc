"""A mixture of Gaussians with everything about it known.

Reference:
    Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 2.3.9.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets import LogDensity

__all__ = ["GaussianMixture", "mixture", "mixture_10d"]


class GaussianMixture(LogDensity):
    """The normalised density Σ_k π_k N(z; m_k, Σ_k), so that log Z = 0.

    Args:
        weights: π, (K,), over 0; divided by their sum.
        means: m, (K, d).
        covariances: Σ, (K, d, d), each symmetric and positive definite.
        name: for tables and figures.

    Attributes:
        weights: π, (K,), float64.
        means: m, (K, d), float64.
        covariances: Σ, (K, d, d), float64.
        mean: the mean of the mixture, (d,).
        covariance: the covariance of the mixture, (d, d).

    Raises:
        TargetError: the shapes do not go together, a weight is not over 0, or a covariance is not
            positive definite.
    """

    def __init__(
        self, weights: Tensor, means: Tensor, covariances: Tensor, *, name: str = "mixture"
    ) -> None:
        _check_shapes(weights, means, covariances)
        self.weights = weights.detach().double() / weights.detach().double().sum()
        self.means = means.detach().double()
        self.covariances = covariances.detach().double()
        self.mean = self.weights @ self.means
        spread = self.means - self.mean
        between = torch.einsum("k,ki,kj->ij", self.weights, spread, spread)
        self.covariance = torch.einsum("k,kij->ij", self.weights, self.covariances) + between
        self._factors = _cholesky(self.covariances)
        dim = means.shape[1]
        self._whiten = torch.linalg.inv(self._factors)
        self._log_scale = (
            self.weights.log()
            - 0.5 * dim * math.log(2 * math.pi)
            - self._factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        )
        super().__init__(
            self._log_mixture,
            dim,
            name=name,
            log_normalizer=0.0,
            sampler=self._draw,
            batched=True,
        )

    def responsibilities(self, z: Tensor) -> Tensor:
        """The probability of each component at points z (n, d): (n, K).

        Their mean over draws estimates the weights, so it shows a lost or starved mode.
        """
        return self._log_components(z).softmax(-1)

    def _log_components(self, z: Tensor) -> Tensor:
        centred = z.unsqueeze(1) - self.means.to(z)
        white = torch.einsum("nki,kji->nkj", centred, self._whiten.to(z))
        return self._log_scale.to(z) - 0.5 * white.square().sum(-1)

    def _log_mixture(self, z: Tensor) -> Tensor:
        return self._log_components(z).logsumexp(-1)

    def _draw(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        noise = torch.randn(n, self.dim, generator=generator, dtype=dtype, device=device)
        weights = self.weights.to(device)
        if n == 0:
            return noise
        which = torch.multinomial(weights, n, replacement=True, generator=generator)
        means, factors = self.means.to(noise), self._factors.to(noise)
        return means[which] + torch.einsum("nij,nj->ni", factors[which], noise)


def _check_shapes(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    shapes = tuple(weights.shape), tuple(means.shape), tuple(covariances.shape)
    k, d = shapes[1] if means.dim() == 2 else (0, 0)
    if k * d == 0 or shapes != ((k,), (k, d), (k, d, d)):
        raise TargetError(
            "a mixture takes weights= (K,), means= (K, d) and covariances= (K, d, d); got "
            + ", ".join(map(str, shapes))
        )
    if not bool((weights > 0).all()):
        raise TargetError(f"weights= must all be over 0; got {weights.tolist()}")


def _cholesky(covariances: Tensor) -> Tensor:
    factors: Tensor
    factors, info = torch.linalg.cholesky_ex(covariances)
    if bool(info.any()) or not torch.allclose(covariances, covariances.mT):
        raise TargetError("each of covariances= must be symmetric and positive definite")
    return factors


mixture = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, device="cpu"),
    torch.tensor([[-2.5, 0.0], [2.5, 0.0], [0.0, 3.5]], dtype=torch.float64, device="cpu"),
    torch.tensor(
        [
            [[0.64, 0.36], [0.36, 0.81]],
            [[0.49, -0.28], [-0.28, 0.64]],
            [[1.00, 0.00], [0.00, 0.25]],
        ],
        dtype=torch.float64,
        device="cpu",
    ),
)
"""Three modes of unequal weight, width and slant in the plane: d = 2, weights 0.5, 0.3, 0.2."""


def _scattered() -> GaussianMixture:
    """Eight components whose means, shapes and weights come from a formula rather than a seed."""
    one = torch.ones((), dtype=torch.float64, device="cpu")
    k, i = one.new_tensor(range(1, 9)).unsqueeze(-1), one.new_tensor(range(1, 11))
    direction = torch.nn.functional.normalize(torch.cos(2 * k * i), dim=-1)
    radius = 6.5 + 1.5 * (k - 1) / 7
    # A reflection turns the axes, and each component has its own order of the variances.
    mirror = torch.nn.functional.normalize(torch.sin(k + i), dim=-1)
    axes = torch.eye(10, dtype=torch.float64, device="cpu") - 2 * mirror.unsqueeze(
        -1
    ) * mirror.unsqueeze(-2)
    variances = torch.stack([(0.4 + 1.2 * (i - 1) / 9).roll(j) for j in range(8)])
    covariances = (axes * variances.unsqueeze(-2)) @ axes.mT
    weights = one.new_tensor([0.25, 0.20, 0.15, 0.12, 0.10, 0.07, 0.06, 0.05])
    symmetric = 0.5 * (covariances + covariances.mT)
    return GaussianMixture(weights, radius * direction, symmetric, name="mixture_10d")


mixture_10d = _scattered()
"""Eight modes that are far apart: d = 10, within a ball of radius 8, weights from 0.05 to 0.25.

Each covariance has its eigenvalues between 0.4 and 1.6, in directions of its own, and the nearest
two means are 8.8 of their standard deviations apart: no chain finds its way from one to another.
"""
