"""The regressions by sufficient statistics, on which NUTS runs: densities of the models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.posteriors.sufficient_statistics import SUMMARISED, summarised_target
from models.posteriordb import posteriordb_target

DTYPE = torch.float64
ROWS = 40


def normals(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def data() -> dict[str, dict[str, Any]]:
    """Small data sets in posteriordb's form, by posterior."""
    x, noise = normals(ROWS, 3, seed=1), normals(ROWS, seed=2)
    design = torch.cat([torch.ones(ROWS, 1, dtype=DTYPE), x + 5], 1)
    years = 3950 + torch.arange(ROWS, dtype=DTYPE)
    return {
        "diamonds-diamonds": {
            "X": design.tolist(),
            "Y": (8 + x @ normals(3, seed=3) + noise).tolist(),
        },
        "earnings-logearn_interaction": {
            "earn": (9 + noise).exp().tolist(),
            "height": (67 + 4 * x[:, 0]).tolist(),
            "male": (x[:, 1] > 0).to(DTYPE).tolist(),
        },
        "kilpisjarvi_mod-kilpisjarvi": {
            "x": years.tolist(),
            "y": (9 + noise).tolist(),
            "pmualpha": 9.3,
            "psalpha": 100.0,
            "pmubeta": 0.0,
            "psbeta": 0.03,
        },
    }


@pytest.mark.parametrize("name", data())
def test_density_and_gradient_are_those_of_the_model(name: str) -> None:
    """In double precision, at scattered points: to rounding, which the squares of years make 1e-9.

    The gradient is set down by hand there, and autograd's here.
    """
    values = data()[name]
    posterior: Any = SimpleNamespace(name=name, data=SimpleNamespace(values=lambda: values))
    model = posteriordb_target(posterior)
    summarised = summarised_target(posterior)
    assert summarised.dim == model.dim
    points = [normals(20, model.dim, seed=4).requires_grad_() for _ in range(2)]
    densities = [t.log_prob(z) for t, z in zip((model, summarised), points, strict=True)]
    torch.testing.assert_close(densities[1], densities[0], rtol=1e-9, atol=0)
    gradients = [
        torch.autograd.grad(density.sum(), z)[0]
        for density, z in zip(densities, points, strict=True)
    ]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


def test_every_posterior_with_statistics_is_tested() -> None:
    assert set(SUMMARISED) == set(data())
