"""A correlated Gaussian with everything about it known.

Reference:
    Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 2.3. Rotations
    are drawn as in Francesco Mezzadri, "How to Generate Random Matrices from the Classical
    Compact Groups", 2007.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets import LogDensity

__all__ = ["Gaussian", "gaussian", "gaussian_20d", "make_gaussian"]


class Gaussian(LogDensity):
    """The kernel exp(−½ (z − m)ᵀ Σ⁻¹ (z − m)), with log Z = (d/2) log 2π + ½ log det Σ.

    Args:
        mean: m, (d,).
        covariance: Σ, (d, d), symmetric and positive definite.
        name: for tables and figures.

    Attributes:
        mean: m, (d,), float64.
        covariance: Σ, (d, d), float64.

    Raises:
        TargetError: the shapes do not go together, or Σ is not positive definite.

    Example:
        >>> target = Gaussian(torch.zeros(2), torch.eye(2))
        >>> round(target.log_normalizer, 6)
        1.837877
    """

    def __init__(self, mean: Tensor, covariance: Tensor, *, name: str = "gaussian") -> None:
        self.mean = mean.detach().double()
        self.covariance = covariance.detach().double()
        dim = len(self.mean) if self.mean.dim() == 1 else 0
        if dim == 0 or self.covariance.shape != (dim, dim):
            raise TargetError(
                f"a Gaussian takes mean= (d,) and covariance= (d, d); got "
                f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        self._factor = _cholesky(self.covariance)
        eye = torch.eye(dim, dtype=torch.float64, device=self.mean.device)
        self._whiten = torch.linalg.solve_triangular(self._factor, eye, upper=False).T
        half_log_det = self._factor.diagonal().log().sum().item()
        super().__init__(
            self._log_kernel,
            dim,
            name=name,
            log_normalizer=0.5 * dim * math.log(2 * math.pi) + half_log_det,
            sampler=self._draw,
            batched=True,
        )

    def _log_kernel(self, z: Tensor) -> Tensor:
        white: Tensor = (z - self.mean.to(z)) @ self._whiten.to(z)
        return -0.5 * white.square().sum(-1)

    def _draw(
        self,
        n: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        noise = torch.randn(n, self.dim, generator=generator, dtype=dtype, device=device)
        return self.mean.to(noise) + noise @ self._factor.to(noise).T


def make_gaussian(
    dim: int = 20, *, condition: float = 100.0, seed: int = 0, name: str = "gaussian"
) -> Gaussian:
    """A Gaussian with a random mean and a randomly rotated covariance of given condition number.

    The eigenvalues of Σ are spaced evenly in log from condition^−½ to condition^½, so that
    det Σ = 1 and log Z = (d/2) log 2π; the mean is a standard normal draw.

    Args:
        dim: d, at least 1; 1 has the condition number 1 whatever is asked for.
        condition: the largest eigenvalue of Σ over the smallest, at least 1.
        seed: of the mean and the rotation.
        name: for tables and figures.

    Raises:
        TargetError: dim or condition is out of its range.
    """
    if dim < 1:
        raise TargetError(f"dim= must be an integer of at least 1; got {dim!r}")
    if not 1 <= condition < math.inf:
        raise TargetError(f"condition= must be at least 1 and finite; got {condition!r}")
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, generator=generator, dtype=torch.float64, device="cpu")
    rotation = _rotation(dim, generator)
    half_range = 0.5 * math.log(condition) if dim > 1 else 0.0
    eigenvalues = torch.linspace(
        -half_range, half_range, dim, dtype=torch.float64, device="cpu"
    ).exp()
    return Gaussian(mean, (rotation * eigenvalues) @ rotation.T, name=name)


def _rotation(dim: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix (d, d), uniform under the Haar measure."""
    square = torch.randn(dim, dim, generator=generator, dtype=torch.float64, device="cpu")
    q, r = torch.linalg.qr(square)
    # QR leaves the signs of the columns to the library; fixing them makes the draw uniform and
    # the same everywhere.
    rotation: Tensor = q * r.diagonal().sign()
    return rotation


def _cholesky(covariance: Tensor) -> Tensor:
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(covariance)
    if info.item() != 0 or not torch.allclose(covariance, covariance.T):
        raise TargetError("covariance= must be symmetric and positive definite")
    return factor


gaussian = make_gaussian()
"""The one the benchmarks use: d = 20, condition number 100."""

gaussian_20d = make_gaussian(20, condition=1e4, name="gaussian_20d")
"""A hard one: d = 20, condition number 10⁴, standard deviations from 0.1 to 10 along its axes."""
