"""Fits and steps of FlowJAX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
import torch
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import block_neural_autoregressive_flow, coupling_flow, planar_flow
from flowjax.train import fit_to_key_based_loss, step
from flowjax.train.losses import ElboLoss

from benchmarks.speed.clocks import WARMUP, Moment, timed
from benchmarks.speed.fitter import LADDER
from benchmarks.speed.jax_targets import LOG_DENSITIES
from benchmarks.speed.problems import DRAWS, Problem, gap_of

__all__ = ["FLOWS", "FlowJaxFitter", "step_times"]

FLOWS = ("planar*8", "coupling splines*8", "BNAF")
DRAWS_A_STEP = 256
RATE = 0.005


def make_flow(name: str, dim: int, seed: int) -> Any:
    """A flow over N(0, I) whose fast direction is that of draws."""
    key, base = jr.key(seed), Normal(jnp.zeros(dim))
    if name == "planar*8":
        return planar_flow(key, base_dist=base, flow_layers=8, invert=False)
    if name == "BNAF":
        return block_neural_autoregressive_flow(key, base_dist=base, invert=False)
    spline = RationalQuadraticSpline(knots=8, interval=5)
    return coupling_flow(key, base_dist=base, transformer=spline, invert=False)


@dataclass
class FlowJaxFitter:
    """Its own loop and ELBO with 256 draws a step, and Adam whose rate falls to 0 by a cosine.

    Attributes:
        problem: the target.
        flow: a name in ``FLOWS``.
    """

    problem: Problem
    flow: str
    lengths = LADDER
    found: Any = field(default=None, init=False)

    def run(self, steps: int | None, seed: int) -> None:
        """See ``Fitter``."""
        count = steps or 0
        self.found, _ = fit_to_key_based_loss(
            jr.key(seed + 1),
            make_flow(self.flow, self.problem.dim, seed),
            loss_fn=ElboLoss(LOG_DENSITIES[self.problem.name], DRAWS_A_STEP),
            steps=count,
            optimizer=optax.adam(optax.cosine_decay_schedule(RATE, count)),
            show_progress=False,
        )

    def gap(self) -> float:
        """See ``Fitter``."""
        x, log_q = self.found.sample_and_log_prob(jr.key(12_345), (DRAWS,))
        found = (torch.from_numpy(np.array(values)) for values in (x, log_q))
        return gap_of(self.problem, *found)


def step_times(n: int, steps: int) -> list[Moment]:
    """What each of so many steps of eight planar flows on pot1 took with n draws."""
    params, static = eqx.partition(
        make_flow("planar*8", 2, 0),
        eqx.is_inexact_array,
        is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
    )
    loss, adam = ElboLoss(LOG_DENSITIES["pot1"], n), optax.adam(RATE)
    state, keys = adam.init(params), iter(jr.split(jr.key(1), steps + WARMUP))

    def one() -> None:
        nonlocal params, state
        params, state, value = step(
            params, static, key=next(keys), optimizer=adam, opt_state=state, loss_fn=loss
        )
        jax.block_until_ready(value)

    return timed(one, steps)
