"""Every Pyro model of the zoo as a target: the same log-density as Pyro's own trace gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from models import (
    eight_schools,
    eight_schools_noncentered,
    hierarchical_correlation,
    linear_regression,
    logistic_regression,
)
from nfvi import PyroTarget

ZOO = [
    eight_schools,
    eight_schools_noncentered,
    hierarchical_correlation,
    linear_regression,
    logistic_regression,
]


def by_pyro(model: Callable[..., Any], values: dict[str, Tensor]) -> float:
    """log p at constrained values, plus the log-Jacobians of torch's own bijections."""
    trace = poutine.trace(poutine.condition(model, values)).get_trace()
    total = trace.log_prob_sum()
    for name, value in values.items():
        transform = biject_to(trace.nodes[name]["fn"].support)
        unconstrained = transform.inv(value)
        total = total + transform.log_abs_det_jacobian(unconstrained, value).sum()
    return float(total)


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.__name__)
@pytest.mark.parametrize("n", [1, 3])
def test_log_density_is_that_of_pyro(model: Callable[..., Any], n: int) -> None:
    target = PyroTarget(model)
    generator = torch.Generator().manual_seed(n)
    z = 0.5 * torch.randn(n, target.dim, generator=generator, dtype=torch.float64)
    sites = target.constrain(z)
    got = target.log_prob(z)
    for i in range(n):
        expected = by_pyro(model, {name: sites[name][i] for name in target.sites})
        # Sums of some hundreds of terms in float64: 1e-5 is the contract, not the rounding.
        assert got[i].item() == pytest.approx(expected, rel=1e-9, abs=1e-5)
