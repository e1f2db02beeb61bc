"""The models in PyMC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor

from benchmarks.languages.data import SCHOOLS, counties, returns, trials
from benchmarks.languages.sites import COMPARED, Sites

__all__ = ["sampled", "target"]


def schools() -> pm.Model:
    """μ ~ N(0, 5), τ ~ HalfCauchy(5), η_j ~ N(0, 1), y_j ~ N(μ + τ η_j, σ_j)."""
    with pm.Model(coords={"school": range(8)}) as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        eta = pm.Normal("eta", dims="school")
        theta = pm.Deterministic("theta", mu + tau * eta, dims="school")
        pm.Normal("y", theta, SCHOOLS["sigma"], observed=SCHOOLS["y"], dims="school")
    return model


def radon() -> pm.Model:
    """a_j ~ N(m, s), y ~ N(a_county + b floor, σ), with m ~ N(0, 2), b ~ N(0, 1), s, σ ~ N⁺(1)."""
    data = counties()
    with pm.Model(coords={"county": range(data.number)}) as model:
        m, s = pm.Normal("m", 0.0, 2.0), pm.HalfNormal("s", 1.0)
        b, sigma = pm.Normal("b", 0.0, 1.0), pm.HalfNormal("sigma", 1.0)
        eta = pm.Normal("eta", dims="county")
        a = pm.Deterministic("a", m + s * eta, dims="county")
        pm.Normal("y", a[data.county] + b * data.floor, sigma, observed=data.y)
    return model


def logistic() -> pm.Model:
    """β ~ N(0, 2.5), y ~ Bernoulli(logit⁻¹(x β))."""
    data = trials()
    with pm.Model() as model:
        beta = pm.Normal("beta", 0.0, 2.5, shape=5)
        pm.Bernoulli("y", logit_p=data.x @ beta, observed=data.y)
    return model


def garch() -> pm.Model:
    """y_t ~ N(μ, σ_t), σ_t² = a0 + a1 (y_{t−1} − μ)² + b1 σ_{t−1}², from σ_1 = 1.

    μ ~ N(0, 1), a0 ~ HalfNormal(1), a1 ~ U(0, 1), b1 | a1 ~ U(0, 1 − a1).
    """
    y = returns()
    with pm.Model() as model:
        mu, a0 = pm.Normal("mu"), pm.HalfNormal("a0", 1.0)
        a1, share = pm.Uniform("a1", 0.0, 1.0), pm.Uniform("share", 0.0, 1.0)
        b1 = pm.Deterministic("b1", (1 - a1) * share)

        def step(at: Any, variance: Any, mu: Any, a0: Any, a1: Any, b1: Any) -> Any:
            return a0 + a1 * (at - mu) ** 2 + b1 * variance

        later = pytensor.scan(
            step,
            sequences=[pm.math.constant(y[:-1])],
            outputs_info=[pm.math.constant(np.float64(1.0))],
            non_sequences=[mu, a0, a1, b1],
            return_updates=False,
        )
        variances = pm.math.concatenate([[1.0], later])
        pm.Normal("y", mu, pm.math.sqrt(variances), observed=y)
    return model


MODELS = {"schools": schools, "counties": radon, "logistic": logistic, "garch": garch}


def target(name: str) -> Any:
    """What is fitted."""
    return MODELS[name]()


def sampled(name: str, draws: int, seed: int) -> Sites:
    """Draws of PyMC's NUTS, four chains."""
    with MODELS[name]():
        run = pm.sample(
            draws=draws,
            tune=1000,
            chains=4,
            cores=1,
            random_seed=seed,
            progressbar=False,
            compute_convergence_checks=False,
        )
    return {site: run.posterior[site].to_numpy() for site in COMPARED[name]}
