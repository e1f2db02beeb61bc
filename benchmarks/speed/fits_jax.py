"""A loop in JAX written by hand for one formula: eight planar layers, restarts and tempering.

It does what ``NFVI("planar*8")`` does, and nothing beside: eight restarts as one batch, β that
rises in three of four, Adam under a cosine, and the restart of highest ELBO. All steps are one
compiled loop, whose number is an argument, so that it is compiled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import torch
from jax import Array

from benchmarks.speed.clocks import WARMUP, Moment, timed
from benchmarks.speed.fitter import LADDER
from benchmarks.speed.jax_targets import LOG_DENSITIES
from benchmarks.speed.problems import DRAWS, Problem, gap_of

__all__ = ["JaxFitter", "step_times"]

Layers: TypeAlias = dict[str, Array]
LAYERS, RESTARTS, DRAWS_A_STEP = 8, 8, 256
RATE, TEMPERED, RANKED = 0.02, 0.6, 20_000
BETAS, EPS = (0.9, 0.99), 1e-8


def start(key: Array, dim: int) -> Layers:
    """Layers near the identity."""
    u, w = jr.normal(key, (2, LAYERS, dim)) * 0.1
    return {"u": u, "w": w, "b": jnp.zeros(LAYERS)}


def push(layers: Layers, z: Array) -> tuple[Array, Array]:
    """x (d) and log|det dx/dz| of one point."""

    def layer(carry: tuple[Array, Array], one: Layers) -> tuple[tuple[Array, Array], None]:
        z, ladj = carry
        u, w = one["u"], one["w"]
        inner = w @ u
        u = u + (jax.nn.softplus(inner) - 1 - inner) * w / (w @ w + 1e-12)
        h = jnp.tanh(w @ z + one["b"])
        return (z + u * h, ladj + jnp.log1p((1 - h**2) * (w @ u))), None

    (x, ladj), _ = jax.lax.scan(layer, (z, jnp.zeros(())), layers, unroll=LAYERS)
    return x, ladj


def terms(layers: Layers, z: Array, beta: Any, name: str) -> Array:
    """β log p − log q of draws (n) from base draws z (n, d)."""
    x, ladj = jax.vmap(partial(push, layers))(z)
    log_q = -0.5 * (z**2 + math.log(math.tau)).sum(1) - ladj
    return beta * jax.vmap(LOG_DENSITIES[name])(x) - log_q


def one_step(
    carry: tuple[Any, Any], key: Array, rate: Any, beta: Array, name: str, n: int, dim: int
) -> tuple[Any, Any]:
    """A step of Adam for all restarts."""
    layers, state = carry
    z = jr.normal(key, (beta.shape[0], n, dim))

    def loss(layers: Layers) -> Array:
        each = jax.vmap(terms, (0, 0, 0, None))(layers, z, beta, name)
        return -each.mean(1).sum()

    return adam(layers, jax.grad(loss)(layers), state, rate)


def adam(layers: Layers, gradient: Layers, state: Any, rate: Any) -> tuple[Layers, Any]:
    """A step of Adam; the state is (steps, first moments, second moments)."""
    count, first, second = (
        state[0] + 1,
        *(
            jax.tree.map(lambda m, g, b=b, k=k: b * m + (1 - b) * g**k, moment, gradient)
            for moment, b, k in zip(state[1:], BETAS, (1, 2), strict=True)
        ),
    )
    scale = [1 - b**count for b in BETAS]

    def moved(value: Array, m: Array, v: Array) -> Array:
        return value - rate * (m / scale[0]) / (jnp.sqrt(v / scale[1]) + EPS)

    return jax.tree.map(moved, layers, first, second), (count, first, second)


def at_rest(layers: Layers) -> Any:
    """The state of Adam before its first step."""
    zeros = jax.tree.map(jnp.zeros_like, layers)
    return jnp.zeros(()), zeros, zeros


@partial(jax.jit, static_argnames=("name", "dim"))
def fitted(key: Array, steps: Array, name: str, dim: int) -> Layers:
    """The layers of the best of eight restarts after so many steps."""
    layers = jax.vmap(start, (0, None))(jr.split(key, RESTARTS), dim)
    tempered = jnp.arange(RESTARTS) % 4 != 1

    def body(i: Array, carry: Any) -> Any:
        part = i / steps
        rate = RATE * jnp.minimum((i + 1) / 50, 1.0) * 0.5 * (1 + jnp.cos(math.pi * part))
        beta = jnp.where(tempered, jnp.clip(part / TEMPERED, 0.01, 1.0), 1.0)
        return one_step(carry, jr.fold_in(key, i), rate, beta, name, DRAWS_A_STEP, dim)

    layers, _ = jax.lax.fori_loop(0, steps, body, (layers, at_rest(layers)))
    z = jr.normal(jr.fold_in(key, 2**31), (RANKED, dim))
    elbos = jax.vmap(lambda one: terms(one, z, 1.0, name).mean())(layers)
    return jax.tree.map(lambda values: values[elbos.argmax()], layers)


@dataclass
class JaxFitter:
    """The loop on a problem.

    Attributes:
        problem: the target.
    """

    problem: Problem
    lengths = LADDER
    layers: Any = field(default=None, init=False)

    def run(self, steps: int | None, seed: int) -> None:
        """See ``Fitter``."""
        found = fitted(jr.key(seed), jnp.asarray(steps), self.problem.name, self.problem.dim)
        self.layers = jax.block_until_ready(found)

    def gap(self) -> float:
        """See ``Fitter``."""
        z = jr.normal(jr.key(12_345), (DRAWS, self.problem.dim))
        x, ladj = jax.vmap(partial(push, self.layers))(z)
        log_q = -0.5 * (z**2 + math.log(math.tau)).sum(1) - ladj
        found = (torch.from_numpy(np.array(values)) for values in (x, log_q))
        return gap_of(self.problem, *found)


def step_times(n: int, steps: int) -> list[Moment]:
    """What each of so many steps on pot1 took with n draws of one restart."""
    step = jax.jit(partial(one_step, name="pot1", n=n, dim=2))
    layers = jax.vmap(start, (0, None))(jr.split(jr.key(0), 1), 2)
    carry = layers, at_rest(layers)
    keys = iter(jr.split(jr.key(1), steps + WARMUP))

    def one() -> None:
        nonlocal carry
        carry = jax.block_until_ready(step(carry, next(keys), RATE, jnp.ones(1)))

    return timed(one, steps)
