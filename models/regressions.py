"""Linear regressions with normal errors, under the priors that posteriordb's models have.

Every model draws its sites in the dtype of the response. A flat prior is one of which only the
support counts, since its density is masked out; it is improper, so there is no evidence.

Reference:
    Andrew Gelman and Jennifer Hill, "Data Analysis Using Regression and Multilevel/Hierarchical
    Models", 2007, chapters 3 and 4, for the flat and half-Cauchy forms; Paul-Christian Bürkner,
    "brms: An R Package for Bayesian Multilevel Models Using Stan", 2017, for the centred one.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
from torch import Tensor

__all__ = [
    "centered_regression",
    "flat_regression",
    "half_cauchy_regression",
    "line_regression",
    "normal_regression",
]


def flat_regression(x: Tensor, y: Tensor) -> None:
    """The model y ~ N(x β, σ) with β flat on R^p and σ flat on (0, ∞); p + 1 dimensions.

    Args:
        x: the design (N, p); an intercept is a column of ones.
        y: the response (N,).
    """
    beta = _flat_coefficients(x, y)
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_ones(())).mask(False))
    _observe(beta @ x.to(beta).T, sigma, y)


def half_cauchy_regression(x: Tensor, y: Tensor, scale: float = 2.5) -> None:
    """The model y ~ N(x β, σ) with β flat on R^p and σ ~ HalfCauchy(s); p + 1 dimensions.

    Args:
        x: the design (N, p); an intercept is a column of ones.
        y: the response (N,).
        scale: s, over 0.
    """
    beta = _flat_coefficients(x, y)
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_full((), scale)))
    _observe(beta @ x.to(beta).T, sigma, y)


def normal_regression(x: Tensor, y: Tensor, scale: float = 10.0) -> None:
    """The model y ~ N(x β, σ) with β_j ~ N(0, s) and σ ~ HalfNormal(s); p + 1 dimensions.

    Args:
        x: the design (N, p); an intercept is a column of ones.
        y: the response (N,).
        scale: s, over 0.
    """
    prior = dist.Normal(y.new_zeros(x.shape[1]), scale)
    beta = pyro.sample("beta", prior.to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_full((), scale)))
    _observe(beta @ x.to(beta).T, sigma, y)


def line_regression(
    x: Tensor,
    y: Tensor,
    intercept: tuple[float, float] = (0.0, 10.0),
    slope: tuple[float, float] = (0.0, 10.0),
) -> None:
    """The model y ~ N(α + β x, σ) with normal α and β, and σ flat on (0, ∞); 3 dimensions.

    Where x is far from 0, as years are, α and β are all but collinear under the posterior.

    Args:
        x: the predictor (N,), as it is: it is not centred here.
        y: the response (N,).
        intercept: the mean and the standard deviation of α.
        slope: the mean and the standard deviation of β.
    """
    alpha = pyro.sample("alpha", dist.Normal(y.new_full((), intercept[0]), intercept[1]))
    beta = pyro.sample("beta", dist.Normal(y.new_full((), slope[0]), slope[1]))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_ones(())).mask(False))
    _observe(alpha + beta * x.to(beta), sigma, y)


def centered_regression(x: Tensor, y: Tensor) -> None:
    """The model y ~ N(a + (x − x̄) b, σ), b_j ~ N(0, 1), a and σ by Student's t; p + 2 dimensions.

    The sites are ``b``, ``Intercept`` ~ StudentT(3, 8, 10) and ``sigma`` ~ StudentT(3, 0, 10)
    folded onto (0, ∞). x̄ holds the means of the columns, so that the intercept is the mean of y at
    an average row.

    Args:
        x: the predictors (N, p), without a column of ones.
        y: the response (N,).
    """
    b = pyro.sample("b", dist.Normal(y.new_zeros(x.shape[1]), 1.0).to_event(1))
    intercept = pyro.sample("Intercept", dist.StudentT(3.0, y.new_full((), 8.0), 10.0))
    folded = dist.FoldedDistribution(dist.StudentT(3.0, y.new_zeros(()), 10.0))
    sigma = pyro.sample("sigma", folded)
    x = x.to(b)
    _observe(intercept + b @ (x - x.mean(0)).T, sigma, y)


def _flat_coefficients(x: Tensor, y: Tensor) -> Tensor:
    flat = dist.Normal(y.new_zeros(x.shape[1]), 1.0).to_event(1).mask(False)
    beta: Tensor = pyro.sample("beta", flat)
    return beta


def _observe(mean: Tensor, sigma: Tensor, y: Tensor) -> None:
    """The log-density of the response y (N,) around its mean (N,), as a factor.

    The rows are summed before the scale comes in; ``dist.Normal`` makes five passes over rows and
    points, which for thousands of rows takes five times as long.
    """
    residual = y.to(mean) - mean
    squares = (residual * residual).sum(-1)
    constant = 0.5 * len(y) * math.log(2 * math.pi)
    pyro.factor("y", -0.5 * squares / sigma.square() - len(y) * sigma.log() - constant)
