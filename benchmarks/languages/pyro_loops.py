"""Time series in Pyro with a loop over the times, line by line as in Stan.

The models of ``models`` have the same densities without a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.posteriors.cases import Case, case
from nfvi import PyroTarget

__all__ = ["LOOPS", "loop_case", "loop_target"]


def autoregression(y: Tensor, order: int) -> None:
    """y_t ~ N(α + Σ_k β_k y_{t−k}, σ) for t = K + 1, …, T."""
    alpha = pyro.sample("alpha", dist.Normal(y.new_zeros(()), 10.0))
    beta = pyro.sample("beta", dist.Normal(y.new_zeros(order), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_full((), 2.5)))
    for t in range(order, len(y)):
        mean = alpha
        for k in range(order):
            mean = mean + beta[..., k] * y[t - 1 - k]
        pyro.sample(f"y_{t}", dist.Normal(mean, sigma), obs=y[t])


def arma11(y: Tensor) -> None:
    """y_t = μ + φ y_{t−1} + θ e_{t−1} + e_t with e_t ~ N(0, σ), from y_0 = μ and e_0 = 0."""
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    phi = pyro.sample("phi", dist.Normal(y.new_zeros(()), 2.0))
    theta = pyro.sample("theta", dist.Normal(y.new_zeros(()), 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_full((), 2.5)))
    before, error = mu, torch.zeros_like(mu)
    for t in range(len(y)):
        mean = mu + phi * before + theta * error
        pyro.sample(f"y_{t}", dist.Normal(mean, sigma), obs=y[t])
        before, error = y[t], y[t] - mean


LOOPS: dict[str, Any] = {"arK-arK": autoregression, "arma-arma11": arma11}
"""By posteriordb's names."""


def loop_target(name: str, data: Mapping[str, Any]) -> PyroTarget:
    """The target with a loop of Python, from the data of the database."""
    y = torch.tensor(data["y"], dtype=torch.float64, device="cpu")
    order = (int(data["K"]),) if name == "arK-arK" else ()
    return PyroTarget(LOOPS[name], y, *order, name=name)


def loop_case(name: str, database: str) -> Case:
    """The case of a posterior with a loop of Python as its target."""
    from posteriordb import PosteriorDatabase

    data = PosteriorDatabase(database).posterior(name).data.values()
    return replace(case(name, database), target=loop_target(name, data), summarised=None)
