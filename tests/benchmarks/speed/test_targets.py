"""All libraries fit one density, and the gap to log Z is that of the ELBO."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks.speed.jax_targets import LOG_DENSITIES
from benchmarks.speed.problems import PROBLEMS, Problem, gap_of
from models import eight_schools_noncentered
from nfvi import PyroTarget
from tests.benchmarks.speed.shared import points


class TestTargets:
    @pytest.mark.parametrize("name", list(PROBLEMS))
    def test_jax_has_the_same_density(self, name: str) -> None:
        z = points(PROBLEMS[name].dim)
        ours = PROBLEMS[name].log_prob(z.double())
        theirs = torch.from_numpy(np.array(jax.vmap(LOG_DENSITIES[name])(jnp.asarray(z.numpy()))))
        torch.testing.assert_close(theirs.double(), ours, rtol=1e-5, atol=1e-4)

    def test_eight_schools_are_those_of_the_zoo(self) -> None:
        z = points(10).double()
        model = PyroTarget(eight_schools_noncentered)
        torch.testing.assert_close(
            PROBLEMS["eight schools"].log_prob(z), model.log_prob(z), rtol=1e-6, atol=1e-5
        )

    def test_the_gap_is_log_z_less_the_elbo(self) -> None:
        normal = Problem("normal", 2, lambda z: -0.5 * (z**2).sum(1), math.log(math.tau), (0.1,))
        x = points(2)
        log_q = -0.5 * (x**2).sum(1) - math.log(math.tau)
        assert gap_of(normal, x, log_q) == pytest.approx(0, abs=1e-6)
        assert gap_of(normal, x, log_q + 0.3) == pytest.approx(0.3, abs=1e-6)
