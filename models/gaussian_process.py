"""Regression by a Gaussian process whose scales are to be inferred.

Reference:
    Carl Edward Rasmussen and Christopher Williams, "Gaussian Processes for Machine Learning", 2006,
    chapter 2; the priors are those of the model gp_regr in posteriordb.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["gp_regression"]


def gp_regression(x: Tensor, y: Tensor) -> None:
    """The model y ~ N(0, K + σ I) with K_ij = α² exp(−(x_i − x_j)² / (2 ρ²)); 3 dimensions.

    ρ ~ Gamma(25, 4), with 4 a rate; α ~ HalfNormal(2); σ ~ HalfNormal(1), which is the *variance*
    of the noise. A covariance that is not positive definite in this precision has density NaN.

    Args:
        x: the inputs (N,).
        y: the outputs (N,).
    """
    rho = pyro.sample("rho", dist.Gamma(y.new_full((), 25.0), 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(y.new_full((), 2.0)))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_ones(())))
    x = x.to(rho)
    distance = (x.unsqueeze(-1) - x) / rho
    kernel = alpha.square() * torch.exp(-0.5 * distance.square())
    covariance = kernel + sigma * torch.eye(len(x), dtype=rho.dtype, device=rho.device)
    # `covariance_matrix=` would raise for a whole batch of points where one of them is hopeless.
    factor, _ = torch.linalg.cholesky_ex(covariance)
    process = dist.MultivariateNormal(torch.zeros_like(x), scale_tril=factor)
    pyro.sample("y", process, obs=y.to(rho))
