"""Eight schools: the effect of coaching on test scores, centred and non-centred.

Reference:
    Donald Rubin, "Estimation in Parallel Randomized Experiments", 1981. The model and its priors
    follow Andrew Gelman, John Carlin, Hal Stern, David Dunson, Aki Vehtari and Donald Rubin,
    "Bayesian Data Analysis", 3rd edition, 2013, section 5.5 (table 5.2 has the sixteen numbers);
    the half-Cauchy prior is that of Andrew Gelman, "Prior Distributions for Variance Parameters in
    Hierarchical Models", 2006.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = [
    "EFFECTS",
    "LOG_EVIDENCE",
    "STANDARD_ERRORS",
    "eight_schools",
    "eight_schools_noncentered",
]

EFFECTS = torch.tensor(
    [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64, device="cpu"
)
"""The estimated effect in schools A to H, in points of the test."""

STANDARD_ERRORS = torch.tensor(
    [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64, device="cpu"
)
"""The standard errors of the effects."""

LOG_EVIDENCE = -31.31135
"""log p(y) of both forms, by quadrature over τ with the rest integrated in closed form."""


def eight_schools(y: Tensor = EFFECTS, sigma: Tensor = STANDARD_ERRORS) -> None:
    """Centred form: μ ~ N(0, 5), τ ~ HalfCauchy(5), θ_j ~ N(μ, τ), y_j ~ N(θ_j, σ_j).

    Ten dimensions, with the funnel between τ and θ that makes this form hard.

    Args:
        y: the effects, (J,); default Rubin's eight.
        sigma: their standard errors, (J,), over 0; default Rubin's eight.
    """
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma.to(mu)), obs=y.to(mu))


def eight_schools_noncentered(y: Tensor = EFFECTS, sigma: Tensor = STANDARD_ERRORS) -> None:
    """Non-centred form: η_j ~ N(0, 1) and θ_j = μ + τ η_j in place of θ_j ~ N(μ, τ).

    The same posterior and evidence as :func:`eight_schools`, in coordinates that are nearly
    independent. Ten dimensions; θ is a deterministic site.

    Args:
        y: the effects, (J,); default Rubin's eight.
        sigma: their standard errors, (J,), over 0; default Rubin's eight.
    """
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, sigma.to(mu)), obs=y.to(mu))
