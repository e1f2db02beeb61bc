"""Conjugate Bayesian linear regression on the diabetes data: exact evidence and posterior.

Reference:
    Bradley Efron, Trevor Hastie, Iain Johnstone and Robert Tibshirani, "Least Angle Regression",
    2004, for the data, which scikit-learn ships; Andrew Gelman and others, "Bayesian Data
    Analysis", 3rd edition, 2013, section 14.2, for the conjugate prior.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from nfvi.errors import TargetError

__all__ = ["NormalGamma", "diabetes", "linear_regression", "linear_regression_posterior"]

_SHAPE, _RATE = 3.0, 2.0


@cache  # a model is called at every step of a fit; reading the file each time would dominate it
def diabetes() -> tuple[Tensor, Tensor]:
    """The data: standardised features (442, 10) and response (442,), in float64.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise ImportError(
            "linear_regression reads its data from scikit-learn, which is not installed: "
            "`pip install scikit-learn`, or pass your own x and y"
        ) from error
    features, response = load_diabetes(return_X_y=True, scaled=False)
    x = torch.as_tensor(features, dtype=torch.float64, device="cpu")
    y = torch.as_tensor(response, dtype=torch.float64, device="cpu")
    return (x - x.mean(0)) / x.std(0, correction=0), (y - y.mean()) / y.std(correction=0)


def linear_regression(x: Tensor | None = None, y: Tensor | None = None) -> None:
    """The model λ ~ Gamma(3, 2), a and w_i ~ N(0, λ^−½), y ~ N(a + x w, λ^−½); 12 dimensions.

    The serum features are nearly collinear, so the posterior is strongly correlated; it and the
    evidence are known exactly, see :func:`linear_regression_posterior`.

    Args:
        x: features (N, p); default the diabetes data's 10, standardised.
        y: response (N,); given if and only if x is.

    Raises:
        TargetError: only one of x and y is given.
        ImportError: the default data are asked for without scikit-learn.
    """
    x, y = _data(x, y)
    precision = pyro.sample("precision", dist.Gamma(_SHAPE, _RATE))
    noise = precision.rsqrt()
    intercept = pyro.sample("intercept", dist.Normal(0.0, noise))
    with pyro.plate("features", x.shape[1]):
        weights = pyro.sample("weights", dist.Normal(0.0, noise))
    mean = intercept + weights @ x.to(weights).T
    with pyro.plate("patients", len(y)):
        pyro.sample("y", dist.Normal(mean, noise), obs=y.to(weights))


class NormalGamma(NamedTuple):
    """The law λ ~ Gamma(shape, rate), β | λ ~ N(mean, (λ P)⁻¹), with β = (intercept, weights).

    Attributes:
        mean: of β, (1 + p,), float64.
        inner_precision: P, (1 + p, 1 + p), float64.
        shape: of the gamma distribution; a multiple of one half.
        rate: of the gamma distribution.
        log_evidence: log p(y) of the data that led here.
    """

    mean: Tensor
    inner_precision: Tensor
    shape: float
    rate: float
    log_evidence: float

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Exact draws of the sites of :func:`linear_regression`, by name: each (n, *event)."""
        dim, device = len(self.mean), self.mean.device
        # A gamma variable of shape k/2 is half a sum of k squared normals; torch's own gamma
        # sampler takes no generator.
        squares = torch.randn(
            n, round(2 * self.shape), generator=generator, dtype=torch.float64, device=device
        )
        precision = 0.5 * squares.square().sum(-1) / self.rate
        noise = torch.randn(n, dim, generator=generator, dtype=torch.float64, device=device)
        factor = torch.linalg.cholesky(self.inner_precision)
        offset = torch.linalg.solve_triangular(factor.T, noise.T, upper=True).T
        beta = self.mean + offset * precision.rsqrt().unsqueeze(-1)
        return {"precision": precision, "intercept": beta[:, 0], "weights": beta[:, 1:]}


def linear_regression_posterior(x: Tensor | None = None, y: Tensor | None = None) -> NormalGamma:
    """The exact posterior of :func:`linear_regression`, with its evidence.

    With Φ = (1, x): P = I + ΦᵀΦ, mean = P⁻¹Φᵀy, shape = 3 + N/2, rate = 2 + ½(yᵀy − meanᵀ P mean).

    Args:
        x: as for the model.
        y: as for the model.

    Raises:
        TargetError: only one of x and y is given.
        ImportError: the default data are asked for without scikit-learn.
    """
    x, y = _data(x, y)
    x, y = x.double(), y.double()
    design = torch.cat([torch.ones_like(x[:, :1]), x], dim=-1)
    inner = torch.eye(design.shape[1], dtype=x.dtype, device=x.device) + design.T @ design
    mean = torch.linalg.solve(inner, design.T @ y)
    shape = _SHAPE + 0.5 * len(y)
    rate = _RATE + 0.5 * (y @ y - mean @ inner @ mean).item()
    log_evidence = (
        _SHAPE * math.log(_RATE)
        - math.lgamma(_SHAPE)
        - shape * math.log(rate)
        + math.lgamma(shape)
        - 0.5 * torch.logdet(inner).item()
        - 0.5 * len(y) * math.log(2 * math.pi)
    )
    return NormalGamma(mean, inner, shape, rate, log_evidence)


def _data(x: Tensor | None, y: Tensor | None) -> tuple[Tensor, Tensor]:
    if x is None or y is None:
        if x is not y:
            raise TargetError("linear_regression takes both x and y, or neither")
        return diabetes()
    return x, y
