"""Fits and steps of Pyro's SVI with its flow guides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.transforms import affine_autoregressive, iterated, planar
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow

from benchmarks.speed.clocks import Moment, timed
from benchmarks.speed.fitter import LADDER
from benchmarks.speed.problems import DRAWS, PROBLEMS, Problem, gap_of

__all__ = ["FLOWS", "PyroFitter", "step_times"]

FLOWS: dict[str, Callable[[int], Any]] = {
    "planar*8": partial(iterated, 8, planar),
    "IAF*2": partial(iterated, 2, affine_autoregressive),
}
PARTICLES = 256
RATE, FALL = 0.01, 0.1


@dataclass
class PyroFitter:
    """AutoNormalizingFlow under SVI, 256 vectorised particles, Adam whose rate falls to a tenth.

    Attributes:
        problem: the target.
        flow: a name in ``FLOWS``.
        device: of the guide.
    """

    problem: Problem
    flow: str
    device: str = "cpu"
    lengths = LADDER
    guide: Any = field(default=None, init=False)

    def run(self, steps: int | None, seed: int) -> None:
        """See ``Fitter``."""
        pyro.set_rng_seed(seed)
        svi = self.svi(PARTICLES, FALL ** (1 / (steps or 1)))
        for _ in range(steps or 0):
            svi.step()

    def svi(self, particles: int, decay: float) -> SVI:
        """Inference at step 0."""
        pyro.clear_param_store()
        problem, place = self.problem, torch.device(self.device)

        def model() -> None:
            base = dist.Normal(torch.zeros(problem.dim, device=place), 1.0)
            z = pyro.sample("z", base.to_event(1).mask(False))
            log_p = problem.log_prob(z.reshape(-1, problem.dim))
            pyro.factor("log_p", log_p.reshape(z.shape[:-1]))

        with place:
            self.guide = AutoNormalizingFlow(model, FLOWS[self.flow])
            loss = Trace_ELBO(
                num_particles=particles, vectorize_particles=True, max_plate_nesting=0
            )
            adam = pyro.optim.ClippedAdam({"lr": RATE, "lrd": decay})
            return SVI(model, self.guide, adam, loss)

    def gap(self) -> float:
        """See ``Fitter``."""
        with torch.no_grad():
            posterior = self.guide.get_posterior()
            # An inverse that has none of its own is known for the draws that were just made.
            z = posterior.rsample((DRAWS,))
            return gap_of(self.problem, z.cpu(), posterior.log_prob(z).cpu())


def step_times(n: int, steps: int, device: str = "cpu") -> list[Moment]:
    """What each of so many steps of eight planar flows on pot1 took with n particles."""
    svi = PyroFitter(PROBLEMS["pot1"], "planar*8", device).svi(n, 1.0)
    return timed(svi.step, steps)  # the loss comes back as a number, and is waited for
