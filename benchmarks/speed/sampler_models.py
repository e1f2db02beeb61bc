"""The three models that NUTS is timed on, for each of the libraries; data are those of models/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import models
from models.eight_schools import EFFECTS, STANDARD_ERRORS
from models.logistic_regression import breast_cancer

__all__ = ["SAMPLED", "numpyro_model", "pymc_model", "torch_target"]

SAMPLED = ("eight schools", "logistic regression", "Gaussian, d = 20")
GAUSSIAN = models.make_gaussian(20, seed=0)


def torch_target(name: str) -> Any:
    """What ``nfvi.nuts`` takes: a Pyro model, or a log-density."""
    return {
        "eight schools": models.eight_schools_noncentered,
        "logistic regression": models.logistic_regression,
        "Gaussian, d = 20": GAUSSIAN,
    }[name]


def numpyro_model(name: str) -> Callable[[], None]:
    """The same in NumPyro."""
    import numpyro
    import numpyro.distributions as dist

    def schools() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        y, sigma = np.asarray(EFFECTS), np.asarray(STANDARD_ERRORS)
        numpyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)

    def logistic() -> None:
        x, y = map(np.asarray, breast_cancer())
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 1.0))
        weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([30]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=intercept + x @ weights), obs=y)

    def gaussian() -> None:
        mean, cov = map(np.asarray, (GAUSSIAN.mean, GAUSSIAN.covariance))
        numpyro.sample("z", dist.MultivariateNormal(mean, covariance_matrix=cov))

    return dict(zip(SAMPLED, (schools, logistic, gaussian), strict=True))[name]


def pymc_model(name: str) -> Any:
    """The same in PyMC."""
    import pymc as pm

    with pm.Model() as model:
        if name == "eight schools":
            mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
            eta = pm.Normal("eta", 0, 1, shape=8)
            y, sigma = np.asarray(EFFECTS), np.asarray(STANDARD_ERRORS)
            pm.Normal("y", mu + tau * eta, sigma, observed=y)
        elif name == "logistic regression":
            x, y = map(np.asarray, breast_cancer())
            intercept, weights = pm.Normal("intercept", 0, 1), pm.Normal("weights", 0, 1, shape=30)
            pm.Bernoulli("y", logit_p=intercept + x @ weights, observed=y)
        else:
            pm.MvNormal("z", np.asarray(GAUSSIAN.mean), np.asarray(GAUSSIAN.covariance))
    return model
