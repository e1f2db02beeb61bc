"""A budget in seconds on targets that take long, by a clock that only the target moves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Target


class Slow(Target):
    """A correlated Gaussian whose values take some seconds a point, and gradients three times that.

    Args:
        seconds: of a value.
    """

    dim, name, batching = 3, "slow", "loop"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0
        factor = torch.eye(3) + torch.tensor(0.5).expand(3, 3).tril(-1)
        self.precision = factor @ factor.T

    def log_prob(self, z: Tensor) -> Tensor:
        with_gradient = torch.is_grad_enabled() and z.requires_grad
        self.now += self.seconds * len(z) * (3.0 if with_gradient else 1.0)
        return -0.5 * ((z @ self.precision) * z).sum(-1)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"z": z}


@pytest.mark.parametrize(("seconds", "budget"), [(2e-3, 10.0), (2e-3, 20.0), (2e-4, 10.0)])
def test_the_budget_holds(seconds, budget, monkeypatch) -> None:
    """Within a fifth, and something was fitted."""
    target = Slow(seconds)
    clock = SimpleNamespace(perf_counter=lambda: target.now)
    monkeypatch.setattr("nfvi.auto.record.time", clock)
    fit = NFVI("auto", seed=1).fit(target, budget=budget)
    assert target.now < 1.2 * budget
    assert fit.formula is not None and len(fit.path) > 0
    assert float(fit.elbo) > -2.0
