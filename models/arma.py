"""ARMA(1, 1): a series with one autoregressive and one moving-average term.

Reference:
    George Box, Gwilym Jenkins, Gregory Reinsel and Greta Ljung, "Time Series Analysis:
    Forecasting and Control", 5th edition, 2015, section 3.4; the priors are those of the model
    arma11 of Bob Carpenter and others, "Stan: A Probabilistic Programming Language", 2017.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["arma11", "linear_recurrence"]


def arma11(y: Tensor) -> None:
    """The model y_t = μ + φ y_{t−1} + θ e_{t−1} + e_t with e_t ~ N(0, σ); 4 dimensions.

    The series starts from y_0 = μ and e_0 = 0. μ ~ N(0, 10), φ ~ N(0, 2), θ ~ N(0, 2),
    σ ~ HalfCauchy(2.5); φ and θ are not bounded, and for |θ| > 1 the errors e_t grow as θ^t.

    Args:
        y: the series (T,).
    """
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    phi = pyro.sample("phi", dist.Normal(y.new_zeros(()), 2.0))
    theta = pyro.sample("theta", dist.Normal(y.new_zeros(()), 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_full((), 2.5)))
    series = y.to(mu)
    before = torch.cat([mu.unsqueeze(-1), series[:-1]])
    errors = linear_recurrence(series - mu - phi * before, -theta)
    # The map from the errors to the series is triangular with ones on its diagonal, so the density
    # of the series is that of the errors.
    with pyro.plate("times", len(y)):
        pyro.sample("errors", dist.Normal(0.0, sigma), obs=errors)


def linear_recurrence(r: Tensor, a: Tensor) -> Tensor:
    """The e (T,) with e_1 = r_1 and e_t = r_t + a e_{t−1}, in log2 T steps rather than T.

    With L the shift by one, e = (I − a L)⁻¹ r = (I + a^{T'} L^{T'}) ⋯ (I + a² L²) (I + a L) r.

    Args:
        r: what is added at each time (T,).
        a: the share of the last value that is kept, ().
    """
    e, shift = r, 1
    while shift < len(r):
        e = torch.cat([e[:shift], e[shift:] + a * e[:-shift]])
        a, shift = a * a, 2 * shift
    return e
