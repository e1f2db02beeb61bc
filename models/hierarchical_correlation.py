"""Varying intercepts and slopes with a correlation between them: waiting times in cafés.

Reference:
    Richard McElreath, "Statistical Rethinking", 2nd edition, 2020, section 14.1, for the model and
    the simulated study; Daniel Lewandowski, Dorota Kurowicka and Harry Joe, "Generating Random
    Correlation Matrices Based on Vines and Extended Onion Method", 2009, for the prior.
"""

from __future__ import annotations

import math
from functools import cache

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from nfvi.errors import TargetError

__all__ = ["hierarchical_correlation", "simulate_cafes"]


@cache  # a model is called at every step of a fit
def simulate_cafes(
    cafes: int = 20, visits: int = 10, seed: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    """Waiting times drawn from the model at μ = (3.5, −1), sds (1, 0.5), ρ = −0.7, noise 0.5.

    Args:
        cafes: how many.
        visits: to each, by turns in the morning and in the afternoon.
        seed: of the draw.

    Returns:
        The café of each visit (N,), int64; whether it was in the afternoon (N,), 0 or 1, float64;
        the wait in minutes (N,), float64; N = cafes · visits.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(cafes, 2, generator=generator, dtype=torch.float64, device="cpu")
    intercept = 3.5 + noise[:, 0]
    slope = -1.0 + 0.5 * (-0.7 * noise[:, 0] + math.sqrt(1 - 0.7**2) * noise[:, 1])
    cafe = torch.arange(cafes, device="cpu").repeat_interleave(visits)
    afternoon = (torch.arange(cafes * visits, device="cpu") % 2).double()
    error = torch.randn(len(cafe), generator=generator, dtype=torch.float64, device="cpu")
    return cafe, afternoon, intercept[cafe] + slope[cafe] * afternoon + 0.5 * error


def hierarchical_correlation(
    group: Tensor | None = None, x: Tensor | None = None, y: Tensor | None = None
) -> None:
    """The model y ~ N(a_g + b_g x, σ), (a_g, b_g) ~ N((α, β), D R D), R ~ LKJ(2).

    It has 46 dimensions. Here D = diag(scale), α ~ N(5, 2), β ~ N(−1, 0.5), and both scales and
    σ ~ Exponential(1). The site ``correlation`` is the Cholesky factor of R, and ``effects`` holds
    (a_g, b_g).

    Args:
        group: which group a value belongs to, (N,), integers 0, …, G − 1; default the cafés of
            :func:`simulate_cafes`.
        x: the predictor, (N,).
        y: the response, (N,). All three are given, or none.

    Raises:
        TargetError: only some of the three are given.
    """
    if group is None or x is None or y is None:
        if not (group is None and x is None and y is None):
            raise TargetError("hierarchical_correlation takes all of group, x and y, or none")
        group, x, y = simulate_cafes()
    alpha = pyro.sample("alpha", dist.Normal(5.0, 2.0))
    beta = pyro.sample("beta", dist.Normal(-1.0, 0.5))
    sigma = pyro.sample("sigma", dist.Exponential(1.0))
    ones = torch.ones(2, dtype=alpha.dtype, device=alpha.device)
    scale = pyro.sample("scale", dist.Exponential(ones).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(2, concentration=2 * ones[0]))
    with pyro.plate("groups", int(group.max()) + 1):
        effects = pyro.sample(
            "effects",
            dist.MultivariateNormal(
                torch.stack([alpha, beta], dim=-1),
                scale_tril=scale.unsqueeze(-1) * correlation,
            ),
        )
    chosen = effects[..., group.to(alpha.device), :]
    mean = chosen[..., 0] + chosen[..., 1] * x.to(alpha)
    with pyro.plate("values", len(y)):
        pyro.sample("y", dist.Normal(mean, sigma), obs=y.to(alpha))
