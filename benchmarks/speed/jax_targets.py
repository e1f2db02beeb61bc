"""The log-densities of benchmarks.speed once more, in JAX; each takes one point z (d)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from models.eight_schools import EFFECTS, STANDARD_ERRORS

__all__ = ["LOG_DENSITIES"]

Y, SIGMA = (np.asarray(values, dtype=np.float32) for values in (EFFECTS, STANDARD_ERRORS))
HALF_LOG_TAU = 0.5 * math.log(math.tau)


def _kernel(x: Array, scale: float) -> Array:
    return -0.5 * (x / scale) ** 2


def pot1(z: Array) -> Array:
    """Two modes on a ring."""
    ring = _kernel(jnp.linalg.norm(z) - 2, 0.4)
    return ring + jnp.logaddexp(_kernel(z[0] - 2, 0.6), _kernel(z[0] + 2, 0.6))


def pot4(z: Array) -> Array:
    """A wave that forks."""
    above = z[1] - jnp.sin(0.5 * math.pi * z[0])
    below = above + 3 / (1 + jnp.exp(-(z[0] - 1) / 0.3))
    return jnp.logaddexp(_kernel(above, 0.4), _kernel(below, 0.35)) - 0.1 * jnp.abs(z[0])


def eight_schools(z: Array) -> Array:
    """Eight schools, non-centred, at (μ, log τ, η)."""
    mu, log_tau, eta = z[0], z[1], z[2:]
    tau = jnp.exp(log_tau)
    error = (Y - mu - tau * eta) / SIGMA
    squares = (mu / 5) ** 2 + (eta**2 + error**2).sum()
    cauchy = math.log(2 / (5 * math.pi)) - jnp.log1p((tau / 5) ** 2) + log_tau
    return cauchy - 0.5 * squares - 17 * HALF_LOG_TAU - math.log(5) - float(np.log(SIGMA).sum())


LOG_DENSITIES: dict[str, Callable[[Array], Array]] = {
    "pot1": pot1,
    "pot4": pot4,
    "eight schools": eight_schools,
}
