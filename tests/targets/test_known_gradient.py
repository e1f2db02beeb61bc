"""Targets whose gradient another library computes: NumPy, into which torch cannot see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nfvi import NFVI, FitError, nuts
from nfvi.mcmc import potential
from nfvi.targets import Target, by_another_library, known_gradient, laplace, numbers_per_point
from nfvi.training import step as step_module

SCALE = np.array([0.5, 2.0])
SETTINGS = {"steps": 60, "n_mc": 8, "restarts": 3, "progress": False}


class NumpyNormal(Target):
    """N(0, SCALE²) by NumPy.

    Attributes:
        shown: whether a graph may call it as one operation.
        calls: sizes of its batches of gradients.
    """

    dim, name, differentiable_once, work = 2, "of NumPy", True, 7.0

    def __init__(self, shown: bool = True) -> None:
        self.shown, self.calls = shown, []

    def log_prob(self, z: Tensor) -> Tensor:
        if self.shown:
            return by_another_library(self.with_gradient, z)
        return known_gradient(z, *(x.to(z) for x in self.with_gradient(z)))

    def with_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(len(z))
        standard = z.detach().numpy() / SCALE
        return (
            torch.from_numpy(-0.5 * (standard**2).sum(1)),
            torch.from_numpy(-standard / SCALE),
        )

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


class TestSteps:
    """Traced, with the other library as one operation."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch):
        monkeypatch.setattr(step_module, "LEAST_STEPS", 1)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_same_numbers(self, dtype):
        fits = [
            NFVI("planar*2", seed=0, dtype=dtype).fit(NumpyNormal(), compile=compile, **SETTINGS)
            for compile in ("trace", False)
        ]
        assert [fit.settings["evaluation"] for fit in fits] == ["traced", "eager: compile=False"]
        traced, eager = (fit.history.elbo.numpy() for fit in fits)
        np.testing.assert_array_equal(traced, eager)
        assert traced.std(0).min() > 0

    def test_each_asks_the_library_once(self):
        target = NumpyNormal()
        NFVI("planar*2", seed=0).fit(target, **SETTINGS)
        steps = [n for n in target.calls if n == 3 * 8]
        # The trace: three points as written and as a graph, and the recording.
        assert len(steps) == SETTINGS["steps"] + 7

    def test_one_that_takes_point_by_point_is_traced_too(self):
        target = NumpyNormal()
        target.batching = "loop"
        fit = NFVI("planar*2", seed=0).fit(target, **SETTINGS)
        assert fit.settings["evaluation"] == "traced"

    def test_it_is_no_part_of_a_graph_unless_it_is_shown(self):
        fit = NFVI("planar*2", seed=0).fit(NumpyNormal(shown=False), **SETTINGS)
        assert fit.settings["evaluation"] == "eager: its course depends on values (numpy)"

    def test_an_error_of_the_library_is_told_as_it_is(self):
        class Failing(NumpyNormal):
            def with_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
                if len(self.calls) > 40:
                    raise ValueError("the library has had enough")
                return super().with_gradient(z)

        with pytest.raises(FitError, match="the library has had enough") as caught:
            NFVI("planar*2", seed=0).fit(Failing(), **SETTINGS)
        assert caught.value.guide is not None


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
