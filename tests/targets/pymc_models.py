"""PyMC models of many kinds, with made-up data, for the tests of PyMCTarget."""

from __future__ import annotations

import numpy as np
import pymc as pm
from pymc.distributions.transforms import ordered

__all__ = ["MODELS", "eight_schools"]

SCHOOLS = ("Choate", "Deerfield", "Andover", "Exeter", "Hotchkiss", "Lawrence", "Paul", "Mark")


def eight_schools() -> pm.Model:
    """Not centred, with coordinates, a deterministic and data in containers."""
    with pm.Model(coords={"school": SCHOOLS}) as model:
        error = pm.Data("error", np.array([15.0, 10, 16, 11, 9, 11, 10, 18]), dims="school")
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        step = pm.Normal("step", dims="school")
        theta = pm.Deterministic("theta", mu + tau * step, dims="school")
        effect = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
        pm.Normal("y", theta, error, observed=effect, dims="school")
    return model


def gaussian_process() -> pm.Model:
    x = np.linspace(0, 1, 12)[:, None]
    with pm.Model() as model:
        cov = pm.HalfNormal("eta", 1) ** 2 * pm.gp.cov.Matern52(1, pm.Gamma("ell", 2, 4))
        gp = pm.gp.Marginal(cov_func=cov)
        gp.marginal_likelihood("y", X=x, y=np.sin(6 * x[:, 0]), sigma=pm.HalfNormal("sigma", 1))
    return model


def ordinal() -> pm.Model:
    rng = np.random.default_rng(1)
    with pm.Model() as model:
        eta = pm.Normal("slope", 0, 1) * rng.normal(size=20)
        cuts = pm.Normal("cuts", 0, 2, shape=3, transform=ordered, initval=[-1, 0, 1])
        pm.OrderedLogistic("y", eta=eta, cutpoints=cuts, observed=rng.integers(0, 4, 20))
    return model


def mixture() -> pm.Model:
    """Of three normals, with the component of each observation summed out."""
    y = np.random.default_rng(2).normal(size=20) + np.repeat([-2, 2], 10)
    with pm.Model() as model:
        weight = pm.Dirichlet("weight", np.ones(3))
        mu = pm.Normal("mu", 0, 3, shape=3, transform=ordered, initval=[-2, 0, 2])
        pm.NormalMixture("y", weight, mu=mu, sigma=pm.HalfNormal("sigma", 1, shape=3), observed=y)
    return model


def censored() -> pm.Model:
    y = np.random.default_rng(3).normal(1, 1, 20).clip(-0.5, 1.5)
    with pm.Model() as model:
        normal = pm.Normal.dist(pm.Normal("mu", 0, 2), pm.HalfNormal("sigma", 2))
        pm.Censored("y", normal, lower=-0.5, upper=1.5, observed=y)
    return model


def covariance() -> pm.Model:
    """An LKJ prior of correlations."""
    sd = pm.HalfNormal.dist(1, shape=3)
    y = np.random.default_rng(4).normal(size=(10, 3))
    with pm.Model() as model:
        chol, _, _ = pm.LKJCholeskyCov("chol", n=3, eta=2, sd_dist=sd)
        pm.MvNormal("y", pm.Normal("mu", shape=3), chol=chol, observed=y)
    return model


def simplex() -> pm.Model:
    y = np.random.default_rng(5).multinomial(20, [0.2, 0.3, 0.5], size=5)
    with pm.Model() as model:
        p = pm.Dirichlet("p", pm.Exponential("a", 1) * np.ones(3), shape=(5, 3))
        pm.Multinomial("y", n=20, p=p, observed=y)
    return model


def increasing() -> pm.Model:
    """Increasing means, and a scale between bounds."""
    y = np.random.default_rng(6).normal(size=(6, 4)).cumsum(1)
    with pm.Model() as model:
        mean = np.arange(4.0)
        mu = pm.Normal("mu", mean, 1, shape=4, transform=ordered, initval=mean)
        pm.Normal("y", mu, pm.Uniform("sigma", 0, 5), observed=y)
    return model


def time_series() -> pm.Model:
    y = np.random.default_rng(7).normal(size=20).cumsum()
    with pm.Model() as model:
        start = pm.Normal.dist(0, 1)
        level = pm.GaussianRandomWalk(
            "level", sigma=pm.HalfNormal("sigma", 1), init_dist=start, steps=19
        )
        pm.AR("e", rho=[pm.Uniform("rho", -1, 1)], sigma=1.0, init_dist=start, observed=y)
        pm.Normal("y", level, 0.5, observed=y)
    return model


def horseshoe() -> pm.Model:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(20, 6))
    with pm.Model(coords={"column": range(6)}) as model:
        local = pm.HalfStudentT("local", 3, 1, dims="column")
        raw = pm.Normal("raw", dims="column")
        beta = pm.Deterministic("beta", raw * local * pm.HalfCauchy("tau", 1), dims="column")
        mean = pm.Data("x", x) @ beta
        pm.Normal("y", mean, pm.HalfNormal("sigma", 1), observed=2 * x[:, 0] + rng.normal(size=20))
    return model


MODELS = {
    made.__name__: made
    for made in (
        *(eight_schools, gaussian_process, ordinal, mixture, censored),
        *(covariance, simplex, increasing, time_series, horseshoe),
    )
}
