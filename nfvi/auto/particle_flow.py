"""A flow for targets of more modes than a mixture can hold, learned from particles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nfvi.auto.gaussians import keep_guide
from nfvi.auto.record import Record
from nfvi.auto.tried import described
from nfvi.guides import AnyGuide, Guide, Placement
from nfvi.mcmc import ParallelHMC
from nfvi.search import BroadBase, MissedMass, anneal
from nfvi.targets import Target, log_prob_anywhere
from nfvi.training import (
    CallbackLike,
    Compile,
    Ensemble,
    LearningRate,
    Objective,
    Stop,
    Tempering,
    Trainer,
    TrainState,
    make_optimizer,
    stepper,
)

__all__ = ["FORMULA", "PooledLikelihood", "broad_base", "learn_from_particles", "placed_around"]

logger = logging.getLogger(__name__)

FORMULA = "(nsf(bound=4)-perm)*2-spline(bound=4)"
STEPS = 1_000
BATCH = 256
LEARNING_RATE = 0.005
BOUND = 4.0
"""Of the splines, in units of which the particles are placed: base draws beyond are 6 in 10⁵."""
MARGIN = 1.1
HEAVIEST = 10.0
"""Of the weights that particles count by, in units of their mean: one must not rule a step."""
SPREAD_DRAWS = 1_000
WIDER = 2.0


class Pooled(NamedTuple):
    """One term a particle (R, n): the loss, and log q."""

    loss: Tensor
    log_likelihood: Tensor


class Particles(NamedTuple):
    """Points (n, d) with log p (n)."""

    x: Tensor
    log_p: Tensor


class PooledLikelihood(Objective):
    """Minus the weighted mean of log q over a pool of particles that continues moving.

    The loss is halfway between KL(p ‖ q), where all particles count alike, and the α-divergence
    with α = 2, where each counts by w = p / q over its mean: particles that the flow draws too
    seldom count more, which is what raises the effective share of its own weights.

    Before each step some particles move, in ways that leave the target as it is: by a proposal from
    the flow itself, taken with the chance min(1, w′ / w), which jumps from mode to mode, and by an
    iteration of HMC. So the flow sees fresh draws, and does not overfit the particles.

    Args:
        target: p.
        pool: particles (n, d).
        batch: how many move, and are learned from, in a step.

    Reference:
        Gabrié, Rotskoff and Vanden-Eijnden, Adaptive Monte Carlo augmented with normalizing flows,
        2022. Midgley and others, Flow annealed importance sampling bootstrap, 2023.
    """

    quantity = "log_likelihood"
    advice = "Particles of a flow ran off; try dtype=torch.float64."

    def __init__(self, target: Target, pool: Tensor, batch: int = BATCH) -> None:
        self.target, self.pool, self.batch = target, pool.clone(), batch
        self.step_size = 0.1
        self.gradient_evaluations = self.batched_evaluations = 0

    def spare(self) -> PooledLikelihood:
        return PooledLikelihood(self.target, self.pool, self.batch)

    def tensors(self, batch: Particles) -> tuple[Tensor, ...]:
        return tuple(batch)

    def batch_of(self, tensors: Sequence[Tensor], like: Particles) -> Particles:
        return Particles(*tensors)

    def length(self, batch: Particles) -> int:
        return len(batch.x)

    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> Particles:
        """Particles after they have moved."""
        order = torch.randperm(len(self.pool), generator=generator, device=generator.device)
        index = order[: self.batch].to(self.pool.device)
        x = self._jump(ensemble.guide(0), self.pool[index], generator)
        hmc = ParallelHMC(self.target, x, generator)
        hmc.step_size = self.step_size
        (x,) = hmc.run(1)
        self.step_size = hmc.step_size
        self.gradient_evaluations += hmc.gradient_evaluations
        self.batched_evaluations += hmc.gradient_evaluations // len(x)
        self.pool[index] = x
        return Particles(x, hmc.points.log_p)

    @torch.no_grad()
    def _jump(self, guide: Guide, x: Tensor, generator: torch.Generator) -> Tensor:
        new, log_q = guide.rsample_and_log_prob(len(x), generator=generator)
        points = torch.cat([x, new])
        log_p = log_prob_anywhere(self.target, points)
        weight = log_p - torch.cat([guide.log_prob(x), log_q])
        weight = torch.where(weight.isfinite(), weight, -torch.inf)
        old, proposed = weight.chunk(2)
        uniform = torch.rand(len(x), generator=generator, device=generator.device).to(x)
        taken = uniform.log() < proposed - old
        return torch.where(taken.unsqueeze(1), new, x)

    def __call__(self, ensemble: Ensemble, batch: Particles, beta: Tensor) -> Pooled:
        """Evaluate at n particles."""
        value = ensemble.log_likelihood(batch.x)
        fixed = value.detach()
        weight = torch.softmax(batch.log_p - fixed, 1) * len(batch.x)
        share = 0.5 + 0.5 * weight.clamp_max(HEAVIEST)
        return Pooled(-share * value, fixed)


def placed_around(z: Tensor) -> Placement:
    """The placement that puts the range of particles (n, d) within the bound of the splines."""
    low, high = z.double().amin(0), z.double().amax(0)
    half = 0.5 * MARGIN * (high - low).clamp_min(1e-12)
    return Placement(0.5 * (low + high), half / BOUND)


def learn_from_particles(
    record: Record,
    missed: MissedMass,
    callbacks: Sequence[CallbackLike],
    generator: torch.Generator,
    dtype: torch.dtype,
    compile: Compile = "trace",
) -> None:
    """Keep a flow that is learned by maximum likelihood from particles; nothing if time is up.

    The particles come from a base as wide as the guide and all places that a search has found. A
    fit by the ELBO afterwards would lose modes again, and is not made.

    Args:
        record: of the climb.
        missed: the places.
        callbacks: called after every step.
        generator: of everything random.
        dtype: of the guide.
        compile: as for :meth:`nfvi.NFVI.fit`.
    """
    target = record.target
    guide = record.tried[record.best()].guide
    base = broad_base(guide, missed, generator)
    record.stage("particles")
    logger.info("a search found %d places: particles, and a flow from them", len(missed.places))
    found = anneal(target, base, generator, dtype, enough=record.out_of_time)
    record.count(found.batched_evaluations, found.gradient_evaluations)
    if not found.done:
        logger.info("particles did not arrive in time")
        return
    pool = PooledLikelihood(target, found.z)
    start = Guide(
        FORMULA,
        target.dim,
        placement=placed_around(found.z),
        generator=torch.Generator().manual_seed(record.seed),
        dtype=dtype,
        device=found.z.device,
    )
    ensemble = Ensemble([start])
    trainer = Trainer(
        ensemble,
        pool,
        make_optimizer(None, ensemble.flat, LEARNING_RATE),
        LearningRate.over(STEPS),
        Tempering((0,)),
        generator,
        {**record.settings, **described(start)},
        traced=stepper(compile, STEPS, ensemble.flat.device, {}),
    )

    record.stage("flow from particles")

    def watch(_: TrainState) -> Stop | None:
        spent = record.spent()
        record.show(trainer)
        return None if spent is None else Stop(spent)

    try:
        trainer.run([*callbacks, watch])
    finally:
        record.count(pool.batched_evaluations, pool.gradient_evaluations, trainer.step)
    keep_guide(record, ensemble.guide(0), trainer.step)


@torch.no_grad()
def broad_base(guide: AnyGuide, missed: MissedMass, generator: torch.Generator) -> BroadBase:
    """A base twice as wide as what a search has found and as the draws of a guide.

    Places alone say too little: they are the 64 of highest log p, and in twenty dimensions may all
    lie on one side of a pair of wells, the other of which no particle would then come to.
    """
    draws = guide.sample(SPREAD_DRAWS, generator=generator).double()
    draws = draws[draws.isfinite().all(1)]
    points = [*(place.z for place in missed.places), draws.mean(0)]
    points += [] if missed.extent is None else missed.extent
    found = torch.stack(points)
    low, high = found.amin(0), found.amax(0)
    return BroadBase((low + high) / 2, WIDER * (((high - low) / 2).square() + draws.var(0)).sqrt())
