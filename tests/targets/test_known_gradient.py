"""Targets whose gradient another library computes: NumPy, into which torch cannot see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nfvi import NFVI, nuts
from nfvi.mcmc import potential
from nfvi.targets import Target, known_gradient, laplace, numbers_per_point
from nfvi.training import step as step_module

SCALE = np.array([0.5, 2.0])


class NumpyNormal(Target):
    """N(0, SCALE²) by NumPy."""

    dim, name, differentiable_once, work = 2, "of NumPy", True, 7.0

    def log_prob(self, z: Tensor) -> Tensor:
        standard = z.detach().numpy() / SCALE
        value = torch.from_numpy(-0.5 * (standard**2).sum(1)).to(z)
        return known_gradient(z, value, torch.from_numpy(-standard / SCALE).to(z))

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return {"z": z}


def test_a_vector_jacobian_product():
    z = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(NumpyNormal().log_prob, z)
    one = torch.randn(2, dtype=torch.float64, requires_grad=True)
    value = known_gradient(one, one.detach().square().sum(), 2 * one.detach())
    assert torch.equal(torch.autograd.grad(3 * value, one)[0], 6 * one)


def test_no_second_derivative_is_made_up():
    z = torch.randn(5, 2, requires_grad=True)
    loss = NumpyNormal().log_prob(z).square().sum()
    (score,) = torch.autograd.grad(loss, z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        score.sum().backward()


def test_laplace_takes_differences():
    tril = laplace(NumpyNormal(), torch.zeros(2, dtype=torch.float64), torch.float64)
    torch.testing.assert_close(tril, torch.from_numpy(SCALE).diag_embed(), rtol=1e-6, atol=1e-9)


def test_its_work_is_what_it_says():
    assert numbers_per_point(NumpyNormal(), torch.zeros(32, 2)) == 7


def test_steps_are_not_traced(monkeypatch):
    monkeypatch.setattr(step_module, "LEAST_STEPS", 1)
    fit = NFVI("planar*2", seed=0).fit(NumpyNormal(), steps=5, n_mc=8, progress=False)
    reason = "eager: the gradient of the target is that of another library"
    assert fit.settings["evaluation"] == reason


def test_a_fit_that_asks_for_the_noise_of_gradients():
    """Of groups of draws, by vmap over the backward pass."""
    fit = NFVI("scale", seed=0).fit(
        NumpyNormal(), steps=200, n_mc="auto", restarts=1, lr=0.05, progress=False
    )
    torch.testing.assert_close(
        fit.sample(4000, seed=0).std(0), torch.tensor([0.5, 2.0]), rtol=0.1, atol=0.0
    )


def test_chains_are_not_traced(monkeypatch):
    monkeypatch.setattr(potential, "LEAST_DRAWS", 1)
    tried = []
    monkeypatch.setattr(potential, "traced", lambda *a: tried.append(a))
    run = nuts(NumpyNormal(), draws=20, warmup=20, chains=1, seed=0, progress=False)
    assert not tried
    assert run.draws.shape == (1, 20, 2)
