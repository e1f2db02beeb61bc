"""The posteriordb models of models/posteriordb.py once more, in NumPyro, to time its NUTS.

Each function takes the data as the database has them. Sites have the names of the Pyro models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, lax
from numpyro.distributions import constraints

__all__ = ["MODELS"]

Data = Mapping[str, Any]


def _array(values: Any) -> Array:
    return jnp.asarray(values, dtype=float)


def _named(data: Data, *names: str) -> list[Array]:
    return [_array(data[name]) for name in names]


def _design(*columns: Array) -> Array:
    return jnp.stack([jnp.ones_like(columns[0]), *columns], axis=-1)


def _flat(name: str, size: int) -> Array:
    return numpyro.sample(name, dist.ImproperUniform(constraints.real_vector, (), (size,)))


def _flat_positive(name: str) -> Array:
    return numpyro.sample(name, dist.ImproperUniform(constraints.positive, (), ()))


def _flat_regression(x: Array, y: Array) -> None:
    beta, sigma = _flat("beta", x.shape[1]), _flat_positive("sigma")
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def eight_schools_centered(data: Data) -> None:
    """μ ~ N(0, 5), τ ~ HalfCauchy(5), θ_j ~ N(μ, τ), y_j ~ N(θ_j, σ_j)."""
    y, scale = _named(data, "y", "sigma")
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, scale), obs=y)


def eight_schools_noncentered(data: Data) -> None:
    """The same with θ_j = μ + τ η_j."""
    y, scale = _named(data, "y", "sigma")
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    eta = numpyro.sample("eta", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    theta = numpyro.deterministic("theta", mu + tau * eta)
    numpyro.sample("y", dist.Normal(theta, scale), obs=y)


def autoregression(data: Data) -> None:
    """y_t ~ N(α + Σ_k β_k y_{t−k}, σ)."""
    y, order = _array(data["y"]), int(data["K"])
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([order]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    lags = jnp.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], axis=-1)
    numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y[order:])


def arma11(data: Data) -> None:
    """y_t = μ + φ y_{t−1} + θ e_{t−1} + e_t, from y_0 = μ and e_0 = 0."""
    y = _array(data["y"])
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    before = jnp.concatenate([mu[None], y[:-1]])

    def error(last: Array, at: Array) -> tuple[Array, Array]:
        now = at - theta * last
        return now, now

    _, errors = lax.scan(error, jnp.zeros(()), y - mu - phi * before)
    numpyro.sample("errors", dist.Normal(jnp.zeros_like(y), sigma), obs=errors)


def diamonds(data: Data) -> None:
    """y ~ N(a + (x − x̄) b, σ)."""
    x, y = _array(data["X"])[:, 1:], _array(data["Y"])
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    intercept = numpyro.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = numpyro.sample("sigma", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0)))
    numpyro.sample("y", dist.Normal(intercept + (x - x.mean(0)) @ b, sigma), obs=y)


def earnings(data: Data) -> None:
    """Log earnings on height, sex and their product, all flat."""
    earn, height, male = _named(data, "earn", "height", "male")
    _flat_regression(_design(height, male, height * male), jnp.log(earn))


def gp_regression(data: Data) -> None:
    """y ~ N(0, K + σ I), K_ij = α² exp(−(x_i − x_j)² / (2 ρ²))."""
    x, y = _named(data, "x", "y")
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    covariance = kernel + sigma * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros_like(x), covariance), obs=y)


def kidscore(data: Data) -> None:
    """β flat, σ ~ HalfCauchy(2.5)."""
    x = _design(*_named(data, "mom_hs", "mom_iq"))
    beta = _flat("beta", x.shape[1])
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=_array(data["kid_score"]))


def kilpisjarvi(data: Data) -> None:
    """y ~ N(α + β x, σ), σ flat, the other priors in the data."""
    x, y = _named(data, "x", "y")
    alpha = numpyro.sample("alpha", dist.Normal(data["pmualpha"], data["psalpha"]))
    beta = numpyro.sample("beta", dist.Normal(data["pmubeta"], data["psbeta"]))
    sigma = _flat_positive("sigma")
    numpyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def mesquite(data: Data) -> None:
    """Weight on six measurements, all flat."""
    names = ["diam1", "diam2", "canopy_height", "total_height", "density", "group"]
    _flat_regression(_design(*_named(data, *names)), _array(data["weight"]))


def nes(data: Data) -> None:
    """Party identification on eight predictors, all flat."""
    names = ["real_ideo", "race_adj", "educ1", "gender", "income"]
    ideology, race, *others = _named(data, *names)
    age = _array(data["age_discrete"])
    older = [(age == level).astype(age.dtype) for level in (2, 3, 4)]
    _flat_regression(_design(ideology, race, *older, *others), _array(data["partyid7"]))


def normal_regression(data: Data) -> None:
    """β_j ~ N(0, 10), σ ~ HalfNormal(10)."""
    x, y = _named(data, "X", "y")
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


MODELS: dict[str, Callable[[Data], None]] = {
    "arK-arK": autoregression,
    "arma-arma11": arma11,
    "diamonds-diamonds": diamonds,
    "earnings-logearn_interaction": earnings,
    "eight_schools-eight_schools_centered": eight_schools_centered,
    "eight_schools-eight_schools_noncentered": eight_schools_noncentered,
    "gp_pois_regr-gp_regr": gp_regression,
    "kidiq-kidscore_momhsiq": kidscore,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "mesquite-mesquite": mesquite,
    "nes2000-nes": nes,
    "sblrc-blr": normal_regression,
}
"""By posteriordb's names."""
