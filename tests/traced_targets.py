"""Targets that can be traced: a function, a Pyro model, and one whose factorisation may fail."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor


def banana(z: Tensor) -> Tensor:
    return -0.5 * z[:, 0] ** 2 - (z[:, 1] - z[:, 0] ** 2) ** 2


def schools(y: Tensor) -> None:
    scale = pyro.sample("scale", pyro.distributions.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        effect = pyro.sample("effect", pyro.distributions.Normal(0.0, scale))
        pyro.sample("y", pyro.distributions.Normal(effect, 10.0), obs=y)


def fragile(z: Tensor) -> Tensor:
    """A factorisation that fails below −2, which NUTS takes for a divergence."""
    factor = torch.linalg.cholesky((z[:, :1, None] + 2.0) * torch.eye(2))
    return -0.5 * (z**2).sum(-1) - 0.1 * factor.diagonal(dim1=1, dim2=2).log().sum(-1)
