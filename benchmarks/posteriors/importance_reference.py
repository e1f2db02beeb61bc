"""Reference moments and log evidence by importance sampling, for targets that are nearly normal.

Bayesian logistic regression has neither a sampler nor a closed form, but its posterior is so near
to a normal that weighted draws from a fitted one are worth half as many exact ones. Nothing of what
the benchmarks measure is used: the normal comes from the mode, then from its own weighted draws.

Reference:
    Olivier Cappé, Arnaud Guillin, Jean-Michel Marin and Christian Robert, "Population Monte Carlo",
    2004.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.posteriors.metrics import Reference
from models.moments import Moments
from nfvi import PyroTarget
from nfvi.utils import psislw

__all__ = ["ImportanceReference", "importance_reference"]

_BATCH = 4000


@dataclass(frozen=True)
class ImportanceReference:
    """What importance sampling found.

    Attributes:
        reference: moments of every coordinate of unconstrained space.
        log_evidence: log ∫ p, with p as the target has it.
        error: the standard error of the log evidence.
        ess: effective sample size (Σ w)² / Σ w² of the draws.
        khat: of their weights; below 0.5 all of this can be trusted.
    """

    reference: Reference
    log_evidence: float
    error: float
    ess: float
    khat: float


def importance_reference(
    target: PyroTarget,
    *,
    draws: int = 200_000,
    rounds: int = 6,
    inflate: float = 1.05,
    seed: int = 0,
) -> ImportanceReference:
    """Moments from weighted draws of a normal with the target's own mean and covariance.

    Args:
        target: whose density is nearly normal on unconstrained space, where moments are taken.
        draws: of the last round; those that adapt the normal take a tenth.
        rounds: that adapt the normal, which starts from Laplace's approximation.
        inflate: how much wider than the posterior the normal is, as a factor of its sds, so that
            the tails of the weights are short.
        seed: of the draws.

    Raises:
        ValueError: L-BFGS from 0 comes to no mode.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, covariance = _laplace(target)
    for _ in range(rounds):
        z, log_w = _weighted(target, mean, covariance, inflate, draws // 10, generator)
        mean, covariance = _moments(z, log_w.softmax(0))
    z, log_w = _weighted(target, mean, covariance, inflate, draws, generator)
    weights = log_w.softmax(0)
    mean, covariance = _moments(z, weights)
    square, fourth = weights @ z.square(), weights @ z**4
    moments = Moments(mean, covariance.diagonal(), square, fourth - square.square())
    keys = tuple(f"z[{i}]" for i in range(1, target.dim + 1))
    ess = 1 / weights.square().sum().item()
    return ImportanceReference(
        Reference(keys, moments, target.unconstrain),
        (log_w.logsumexp(0) - math.log(len(z))).item(),
        math.sqrt(1 / ess - 1 / len(z)),
        ess,
        psislw(log_w.numpy())[1],
    )


def _laplace(target: PyroTarget) -> tuple[Tensor, Tensor]:
    """The mode, by L-BFGS from 0, and the inverse of the negative Hessian there."""

    def negative(z: Tensor) -> Tensor:
        return -target.log_prob(z.unsqueeze(0)).sum()

    def closure() -> Tensor:
        search.zero_grad()
        value = negative(z)
        value.backward()
        return value

    z = torch.zeros(target.dim, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([z], max_iter=1000, line_search_fn="strong_wolfe")
    search.step(closure)
    mode = z.detach()
    hessian = torch.autograd.functional.hessian(negative, mode)
    if torch.linalg.eigvalsh(hessian)[0] <= 0:
        raise ValueError(f"L-BFGS from 0 comes to no mode of {target.name!r}")
    return mode, torch.linalg.inv(hessian)


def _weighted(
    target: PyroTarget,
    mean: Tensor,
    covariance: Tensor,
    inflate: float,
    n: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draws (n, d) of the inflated normal, and their log weights (n,)."""
    factor = inflate * torch.linalg.cholesky(covariance)
    noise = torch.randn(n, len(mean), generator=generator, dtype=torch.float64)
    z = mean + noise @ factor.T
    constant = factor.diagonal().log().sum() + 0.5 * len(mean) * math.log(2 * math.pi)
    with torch.no_grad():
        log_p = torch.cat([target.log_prob(part) for part in z.split(_BATCH)])
    return z, log_p + 0.5 * noise.square().sum(-1) + constant


def _moments(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = weights @ z
    centred = z - mean
    covariance = (centred * weights.unsqueeze(-1)).T @ centred
    return mean, 0.5 * (covariance + covariance.T)
