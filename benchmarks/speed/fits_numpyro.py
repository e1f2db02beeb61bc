"""Fits of NumPyro's SVI with its flow guides."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import torch
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoBNAFNormal, AutoIAFNormal
from numpyro.optim import Adam

from benchmarks.speed.fitter import LADDER
from benchmarks.speed.jax_targets import LOG_DENSITIES
from benchmarks.speed.problems import DRAWS, Problem, gap_of

__all__ = ["GUIDES", "NumPyroFitter"]

GUIDES = {"BNAF": AutoBNAFNormal, "IAF": AutoIAFNormal}
PARTICLES = 256
RATE = 0.01


@dataclass
class NumPyroFitter:
    """SVI with 256 particles and Adam, whose rate falls to 0 by a cosine.

    Attributes:
        problem: the target.
        guide: a name in ``GUIDES``.
    """

    problem: Problem
    guide: str
    lengths = LADDER
    found: Any = field(default=None, init=False)

    def run(self, steps: int | None, seed: int) -> None:
        """See ``Fitter``."""
        count, log_p = steps or 0, LOG_DENSITIES[self.problem.name]

        def model() -> None:
            z = numpyro.sample(
                "z", dist.Normal(0.0, 1.0).expand([self.problem.dim]).to_event(1).mask(False)
            )
            numpyro.factor("log_p", log_p(z))

        made = GUIDES[self.guide](model)
        adam = Adam(lambda step: RATE * 0.5 * (1 + jnp.cos(math.pi * step / count)))
        svi = SVI(model, made, adam, Trace_ELBO(num_particles=PARTICLES))
        result = svi.run(jax.random.PRNGKey(seed), count, progress_bar=False)
        self.found = made, jax.block_until_ready(result.params)

    def gap(self) -> float:
        """See ``Fitter``."""
        made, params = self.found
        posterior = made.get_posterior(params)
        base = posterior.base_dist.sample(jax.random.PRNGKey(12_345), (DRAWS,))
        x, log_q = base, posterior.base_dist.log_prob(base)
        for transform in posterior.transforms:
            y, log_det = transform.call_with_intermediates(x)
            log_q = log_q - transform.log_abs_det_jacobian(x, y, log_det)
            x = y
        found = (torch.from_numpy(np.array(values)) for values in (x, log_q))
        return gap_of(self.problem, *found)
