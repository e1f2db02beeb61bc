"""The models in Pyro."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch

from benchmarks.languages.data import SCHOOLS, counties, returns, trials
from benchmarks.languages.sites import Sites
from models.arma import linear_recurrence
from nfvi import as_target, nuts

__all__ = ["sampled", "target"]


def schools() -> None:
    """μ ~ N(0, 5), τ ~ HalfCauchy(5), η_j ~ N(0, 1), y_j ~ N(μ + τ η_j, σ_j)."""
    y, sigma = (torch.as_tensor(SCHOOLS[name]) for name in ("y", "sigma"))
    mu = pyro.sample("mu", dist.Normal(torch.zeros_like(y[0]), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.full_like(y[0], 5.0)))
    with pyro.plate("school", len(y)):
        eta = pyro.sample("eta", dist.Normal(torch.zeros_like(y[0]), 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def radon() -> None:
    """a_j ~ N(m, s), y ~ N(a_county + b floor, σ), with m ~ N(0, 2), b ~ N(0, 1), s, σ ~ N⁺(1)."""
    data = counties()
    floor, y = torch.as_tensor(data.floor), torch.as_tensor(data.y)
    zero = torch.zeros_like(y[0])
    m, s = pyro.sample("m", dist.Normal(zero, 2.0)), pyro.sample("s", dist.HalfNormal(zero + 1.0))
    b = pyro.sample("b", dist.Normal(zero, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(zero + 1.0))
    with pyro.plate("county", data.number):
        eta = pyro.sample("eta", dist.Normal(zero, 1.0))
        a = pyro.deterministic("a", m + s * eta)
    with pyro.plate("house", len(y)):
        mean = a[..., torch.as_tensor(data.county)] + b * floor
        pyro.sample("y", dist.Normal(mean, sigma), obs=y)


def logistic() -> None:
    """β ~ N(0, 2.5), y ~ Bernoulli(logit⁻¹(x β))."""
    data = trials()
    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
    prior = dist.Normal(torch.zeros_like(x[0]), 2.5).to_event(1)
    beta = pyro.sample("beta", prior)
    with pyro.plate("row", len(y)):
        logits = (x @ beta.unsqueeze(-1)).squeeze(-1)
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def garch() -> None:
    """y_t ~ N(μ, σ_t), σ_t² = a0 + a1 (y_{t−1} − μ)² + b1 σ_{t−1}², from σ_1 = 1.

    μ ~ N(0, 1), a0 ~ HalfNormal(1), a1 ~ U(0, 1), b1 | a1 ~ U(0, 1 − a1). A loop of Python over t,
    as most people would write it.
    """
    y = torch.as_tensor(returns())
    zero = torch.zeros_like(y[0])
    mu, a0 = pyro.sample("mu", dist.Normal(zero, 1.0)), pyro.sample("a0", dist.HalfNormal(zero + 1))
    a1 = pyro.sample("a1", dist.Uniform(zero, 1.0))
    share = pyro.sample("share", dist.Uniform(zero, 1.0))
    b1 = pyro.deterministic("b1", (1 - a1) * share)
    variance = torch.ones_like(mu)
    for t in range(len(y)):
        pyro.sample(f"y_{t}", dist.Normal(mu, variance.sqrt()), obs=y[t])
        variance = a0 + a1 * (y[t] - mu) ** 2 + b1 * variance


def garch_at_once() -> None:
    """The same density as :func:`garch` without its loop, for NUTS.

    It takes a gradient of one point at a time, of which the loop needs 45 ms and this 3.
    σ_{t+1}² = r_t + b1 σ_t² with r_t = a0 + a1 (y_t − μ)², solved for all t by doubling.
    """
    y = torch.as_tensor(returns())
    zero = torch.zeros_like(y[0])
    mu, a0 = pyro.sample("mu", dist.Normal(zero, 1.0)), pyro.sample("a0", dist.HalfNormal(zero + 1))
    a1 = pyro.sample("a1", dist.Uniform(zero, 1.0))
    share = pyro.sample("share", dist.Uniform(zero, 1.0))
    b1 = pyro.deterministic("b1", (1 - a1) * share)
    added = a0 + a1 * (y[:-1] - mu) ** 2
    variance = linear_recurrence(torch.cat([torch.ones_like(added[:1]), added]), b1)
    with pyro.plate("times", len(y)):
        pyro.sample("y", dist.Normal(mu, variance.sqrt()), obs=y)


PROGRAMS = {"schools": schools, "counties": radon, "logistic": logistic, "garch": garch}


def target(name: str) -> Any:
    """What is fitted."""
    return as_target(PROGRAMS[name])


def sampled(name: str, draws: int, seed: int) -> Sites:
    """Draws of Pyro's NUTS, four chains, in double precision."""
    model = as_target(garch_at_once) if name == "garch" else target(name)
    run = nuts(
        model,
        draws=draws,
        chains=4,
        warmup=1000,
        seed=seed,
        dtype=torch.float64,
        progress=False,
    )
    return {site: value.numpy() for site, value in run.sites().items()}
