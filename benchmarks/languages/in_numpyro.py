"""The models in NumPyro."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from benchmarks.languages.data import SCHOOLS, counties, returns, trials
from benchmarks.languages.sites import Sites
from nfvi import NumPyroTarget

__all__ = ["sampled", "target"]


def schools(y: Any, sigma: Any) -> None:
    """μ ~ N(0, 5), τ ~ HalfCauchy(5), η_j ~ N(0, 1), y_j ~ N(μ + τ η_j, σ_j)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def radon(county: Any, floor: Any, y: Any) -> None:
    """a_j ~ N(m, s), y ~ N(a_county + b floor, σ), with m ~ N(0, 2), b ~ N(0, 1), s, σ ~ N⁺(1)."""
    m, s = numpyro.sample("m", dist.Normal(0.0, 2.0)), numpyro.sample("s", dist.HalfNormal(1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("county", counties().number):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        a = numpyro.deterministic("a", m + s * eta)
    with numpyro.plate("house", len(y)):
        numpyro.sample("y", dist.Normal(a[county] + b * floor, sigma), obs=y)


def logistic(x: Any, y: Any) -> None:
    """β ~ N(0, 2.5), y ~ Bernoulli(logit⁻¹(x β))."""
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(5), 2.5).to_event(1))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def garch(y: Any) -> None:
    """y_t ~ N(μ, σ_t), σ_t² = a0 + a1 (y_{t−1} − μ)² + b1 σ_{t−1}², from σ_1 = 1.

    μ ~ N(0, 1), a0 ~ HalfNormal(1), a1 ~ U(0, 1), b1 | a1 ~ U(0, 1 − a1).
    """
    mu, a0 = numpyro.sample("mu", dist.Normal(0.0, 1.0)), numpyro.sample("a0", dist.HalfNormal(1.0))
    a1 = numpyro.sample("a1", dist.Uniform(0.0, 1.0))
    share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
    b1 = numpyro.deterministic("b1", (1 - a1) * share)

    def step(variance: Any, at: Any) -> tuple[Any, Any]:
        return a0 + a1 * (at - mu) ** 2 + b1 * variance, variance

    _, variances = jax.lax.scan(step, jnp.ones_like(mu), jnp.asarray(y))
    numpyro.sample("y", dist.Normal(mu, jnp.sqrt(variances)), obs=y)


def _program(name: str) -> tuple[Any, tuple[np.ndarray, ...]]:
    radon_data, yes_or_no = counties(), trials()
    return {
        "schools": (schools, (SCHOOLS["y"], SCHOOLS["sigma"])),
        "counties": (radon, (radon_data.county, radon_data.floor, radon_data.y)),
        "logistic": (logistic, (yes_or_no.x, yes_or_no.y)),
        "garch": (garch, (returns(),)),
    }[name]


def target(name: str) -> Any:
    """What is fitted."""
    model, data = _program(name)
    return NumPyroTarget(model, *data)


def sampled(name: str, draws: int, seed: int) -> Sites:
    """Draws of NumPyro's NUTS, four chains, in double precision."""
    model, data = _program(name)
    with jax.enable_x64(True):
        kernel = NUTS(model)
        run = MCMC(
            kernel,
            num_warmup=1000,
            num_samples=draws,
            num_chains=4,
            chain_method="sequential",
            progress_bar=False,
        )
        run.run(jax.random.PRNGKey(seed), *data)
        found = run.get_samples(group_by_chain=True)
        return {site: np.asarray(value) for site, value in found.items()}
