"""An autoregression: each value of a series is a linear function of those before it.

Reference:
    George Box, Gwilym Jenkins, Gregory Reinsel and Greta Ljung, "Time Series Analysis:
    Forecasting and Control", 5th edition, 2015, section 3.2; the priors are those of the model
    arK of Bob Carpenter and others, "Stan: A Probabilistic Programming Language", 2017.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor

from nfvi.errors import TargetError

__all__ = ["autoregression"]


def autoregression(y: Tensor, order: int = 5) -> None:
    """The model y_t ~ N(α + Σ_k β_k y_{t−k}, σ) for t = K + 1, …, T; K + 2 dimensions.

    The first K values are given. α ~ N(0, 10), β_k ~ N(0, 10), σ ~ HalfCauchy(2.5); nothing keeps
    the series stationary.

    Args:
        y: the series (T,).
        order: K, at least 1 and below T.

    Raises:
        TargetError: the order is out of its range.
    """
    if not 1 <= order < len(y):
        raise TargetError(f"order= must be from 1 to {len(y) - 1} for this series; got {order!r}")
    alpha = pyro.sample("alpha", dist.Normal(y.new_zeros(()), 10.0))
    beta = pyro.sample("beta", dist.Normal(y.new_zeros(order), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_full((), 2.5)))
    series = y.to(beta)
    # Row t has the K values before t, the latest first.
    lags = series.unfold(0, order, 1)[:-1].flip(-1)
    with pyro.plate("times", len(y) - order):
        pyro.sample("y", dist.Normal(alpha + beta @ lags.T, sigma), obs=series[order:])
