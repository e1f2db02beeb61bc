"""What benchmarks/speed times of nfvi, of a loop in JAX, and of NUTS."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks.speed import fitter
from benchmarks.speed.clocks import WARMUP, Moment, medians, timed
from benchmarks.speed.fits_jax import adam, at_rest, push, start
from benchmarks.speed.fits_nfvi import NfviFitter, step_times
from benchmarks.speed.methods import NUTS
from benchmarks.speed.problems import PROBLEMS
from benchmarks.speed.samplers import SAMPLERS, _tensor
from tests.benchmarks.speed.shared import points


class TestMethods:
    def test_a_fit_of_nfvi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fitter, "LADDER", (3,))
        made = NfviFitter(PROBLEMS["pot1"], "loc", False)
        made.run(3, 1)
        assert made.fit is not None and len(made.fit.history) == 3
        # log p is at most 0, and so the gap of any guide is over log Z less its entropy.
        assert made.gap() > PROBLEMS["pot1"].log_z - 1 - math.log(math.tau)
        assert NfviFitter(PROBLEMS["pot1"], "auto").lengths == (None,)

    def test_steps_of_nfvi(self) -> None:
        times = step_times(8, False, 3)
        assert len(times) == 3
        assert min(one.wall for one in times) > 0 and min(one.cpu for one in times) >= 0

    def test_the_first_steps_do_not_count(self) -> None:
        made: list[int] = []
        times = timed(lambda: made.append(0), 4)
        assert (len(times), len(made)) == (4, 4 + WARMUP)
        assert medians([Moment(0.1, 0.2), Moment(0.3, 0.1)]) == pytest.approx(
            {"ms": 200.0, "cpu_ms": 150.0}
        )

    def test_the_loop_by_hand_has_the_right_determinant(self) -> None:
        layers = start(jax.random.key(1), 2)
        layers = {name: 3 * values + 0.5 for name, values in layers.items()}
        z = jnp.array([0.3, -1.2])
        jacobian = jax.jacobian(lambda z: push(layers, z)[0])(z)
        found = float(push(layers, z)[1])
        assert found == pytest.approx(float(jnp.linalg.slogdet(jacobian)[1]), abs=1e-4)

    def test_its_adam_is_that_of_torch(self) -> None:
        gradients = points(3, 4)
        value = torch.zeros(3, requires_grad=True)
        torches = torch.optim.Adam([value], lr=0.1, betas=(0.9, 0.99))
        layers = {"b": jnp.zeros(3)}
        state = at_rest(layers)
        for gradient in gradients:
            value.grad = gradient
            torches.step()
            layers, state = adam(layers, {"b": jnp.asarray(gradient.numpy())}, state, 0.1)
        np.testing.assert_allclose(layers["b"], value.detach().numpy(), rtol=1e-4)

    def test_draws_of_all_variables_side_by_side(self) -> None:
        chains = {"mu": np.zeros((4, 7)), "w": np.ones((4, 7, 2, 3))}
        assert _tensor(chains).shape == (4, 7, 7)
        assert _tensor(torch.zeros(4, 7, 3)).shape == (4, 7, 3)

    def test_samplers_have_one_list(self) -> None:
        assert tuple(SAMPLERS) == NUTS
