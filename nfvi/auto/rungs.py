"""The rungs that NFVI("auto") may try: which flows, from what, for how long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from nfvi.guides import Guide, Placement
from nfvi.training import Plan, default_draws, default_gradient

__all__ = [
    "TAILS",
    "Learned",
    "candidates",
    "grown_guides",
    "heavier",
    "learned_rungs",
    "plan_of",
    "prolonged",
    "settled",
    "sharpened",
    "tailed_rung",
]

# The path gradient of `monotone` solves with a d × d Jacobian for each draw.
FEW_DIMENSIONS = 48
# On 61 coefficients of a logistic regression KL 0.14 after 6 000 steps of 128 draws with the dense
# linear maps in between, 0.24 by `monotone*3` at the same cost, and 0.27 by `realnvp*16`. Steps of
# four times the draws cost twice as much: 2 500 of 512 come to 0.10, 4 500 to 0.07 and 7 500 to
# 0.06. On one of 100 that a Gaussian fits well, the maps gain 0.007 nats on the layers without, at
# 2.6 times the cost. Nothing between was measured.
ROTATED_DIMENSIONS = 64
# Where ridges and waves can be seen along a coordinate, and even draws are worth many more.
VERY_FEW = 4
# Lowered from 30 as the climb was tried on its targets: heavier mends more of k-hat, and lighter
# is nearer to a Gaussian. A rung that is learned on it from its beginning does what one on a normal
# base and a second one for its tails did: on eight of ten of posteriordb's for 2 to 28 % less CPU,
# on the others (arma, arK), which need no second rung, for 2 and 18 % more (seed 1).
TAILS = "studentt(df=20)"
# Each coordinate costs a little ELBO on it. On 26 of a regression (diamonds) that made a second
# rung needed, and a fit dearer, where one on a normal base had been enough.
TAILED_DIMENSIONS = 20
# KL 0.0002 to 0.008 on pot2 to pot4 (docs/benchmarks.md); without the waves 0.25 on pot4.
FOURIER = "monotone(features=fourier(8),alternate=false)*2"


@dataclass(frozen=True)
class Learned:
    """Settings of one rung of learned flows.

    Attributes:
        formula: of the guide.
        steps: of the optimiser.
        n_mc: draws a step.
        lr: learning rate at the top of the schedule.
        tempered: for each restart, the fraction of the steps in which β rises.
        base: of the guide.
        within: the rung is left out if the last one is further than this below its log evidence
            (nats), as more layers will be needed.
        afresh: its layers start as the identity, and not as those of the last rung.
        natural: its steps go along the natural gradient, and not by Adam.
        independent: its draws are independent even where they could be quasi-Monte Carlo.
    """

    formula: str
    steps: int
    n_mc: int
    lr: float
    tempered: tuple[float, ...] = (0.0,)
    base: str = "normal"
    within: float = math.inf
    afresh: bool = False
    natural: bool = False
    independent: bool = False


def learned_rungs(dim: int) -> tuple[Learned, ...]:
    """The rungs above the Gaussians.

    Up to 48 dimensions these are layers of ``monotone``, which is the most flexible family for its
    cost there, up to 20 on a base with heavier tails; above, layers of ``realnvp``, whose cost
    grows more slowly: up to 64 with ``lu`` after every two of them, which mixes the coordinates
    anew.
    """
    if dim <= FEW_DIMENSIONS:
        base = TAILS if dim <= TAILED_DIMENSIONS else "normal"
        return (
            Learned("monotone", 400, 128, 0.02, base=base),
            Learned("monotone*2", 600, 128, 0.02, base=base, within=0.015),
            Learned("monotone*3", 1_500, 256, 0.02, base=base),
            Learned("monotone*3", 2_000, 256, 0.01, base=base),
        )
    if dim <= ROTATED_DIMENSIONS:
        return (
            Learned("(realnvp*2-lu)*4", 1_500, 128, 0.004),
            Learned("(realnvp*2-lu)*8", 7_500, 512, 0.003),
        )
    return (
        Learned("realnvp*4", 1_000, 64, 0.005),
        Learned("realnvp*8", 2_000, 64, 0.005),
        Learned("realnvp*12", 3_000, 128, 0.003),
    )


def tailed_rung(dim: int) -> Learned | None:
    """What is learned afresh where the tails of all other rungs are too light, or ``None``.

    Layers have their tails from the base that they were learned on; on one of heavier tails they do
    better from the beginning than when they are taken over.
    """
    if dim > FEW_DIMENSIONS:
        return None
    return Learned("monotone*3", 2_000, 512, 0.02, base="studentt(df=5)", afresh=True)


def candidates(dim: int) -> tuple[Learned, ...]:
    """What is tried side by side on a target of up to 4 dimensions that no Gaussian comes near.

    One restart of each is tempered, since such targets often have several modes or a long ridge.
    Sums of waves as features let a ridge turn many times, seen along the first coordinate or,
    with ``reverse``, along the last; the base of those is Laplace's, as ridges are long.
    """
    if not 2 <= dim <= VERY_FEW:
        return ()
    tried = (("monotone*3", "normal"), (FOURIER, "laplace"), (f"{FOURIER}-reverse", "laplace"))
    return tuple(Learned(text, 500, 128, 0.02, (0.5, 0.0), base) for text, base in tried)


def sharpened(rung: Learned) -> Learned:
    """What the best of the candidates continues with: a few natural gradients of many draws."""
    return replace(_onward(rung), steps=20, n_mc=1_024, lr=0.7, natural=True)


def settled(rung: Learned) -> Learned:
    """What follows on natural gradients, which leave the noise of their draws in the tails.

    The rate is low: at 0.01 two fits of pot1 that had come to KL 0.002 and 0.001 were at 0.007 and
    0.006 after it, and needed the 2 000 steps of what is prolonged; at 0.003 they end at 0.005 and
    0.001, with k-hats below 0.7.
    """
    return replace(_onward(rung), steps=400, n_mc=512, lr=0.003)


def prolonged(rung: Learned) -> Learned:
    """What mends more than tails: many steps, and many more draws in each than before."""
    return replace(_onward(rung), steps=2_000, n_mc=1_024, lr=0.015)


def _onward(rung: Learned) -> Learned:
    """The same formula in one restart without tempering, with a normal base made heavier.

    There draws are independent: with even ones the natural gradients ended at k-hats of 0.78, 0.59
    and 0.39 on pot1 (three seeds; 0.42, 0.72 and −0.15 without), and Adam after them further off.
    """
    heavy = rung.base == "normal"
    base = TAILS if heavy else rung.base
    return replace(rung, tempered=(0.0,), base=base, independent=heavy)


def heavier(rung: Learned) -> Learned:
    """A short rung of the same formula on a base with heavier tails; for one on a normal base."""
    return replace(rung, steps=300, lr=rung.lr / 2, base=TAILS)


def plan_of(rung: Learned, restarts: int, dim: int, seed: int) -> Plan:
    """The arguments of the run of a rung.

    Args:
        rung: its settings.
        restarts: guides side by side; those for which the rung has no tempering are components of
            a mixture.
        dim: d.
        seed: of everything random.
    """
    tempered = rung.tempered if len(rung.tempered) == restarts else (0.0,) * restarts
    trial = Guide(rung.formula, dim, base=rung.base, generator=torch.Generator().manual_seed(0))
    return Plan(
        steps=rung.steps,
        n_mc=rung.n_mc,
        lengths=tuple(round(fraction * rung.steps) for fraction in tempered),
        gradient=default_gradient(trial),
        lr=rung.lr,
        seed=seed,
        draws="iid" if rung.independent else default_draws(trial),
        held=round(0.6 * rung.steps) if rung.natural else 0,
        combine="mixture" if restarts > len(rung.tempered) else "best",
    )


def grown_guides(
    rung: Learned,
    starts: Sequence[Guide | Placement],
    dim: int,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Iterator[Guide]:
    """One guide for each start: a smaller guide with identity layers added, or a place alone.

    Args:
        rung: the settings.
        starts: guides whose layers begin the formula of the rung, or placements; of guides only
            the placements count where the rung is afresh.
        dim: d.
        dtype: of the guides.
        generator: of the start of new layers around the identity.
    """
    for start in starts:
        place = start.placement if isinstance(start, Guide) else start
        device = None if place is None else place.loc.device
        guide = Guide(
            rung.formula,
            dim,
            base=rung.base,
            placement=place,
            generator=generator,
            dtype=dtype,
            device=device,
        )
        if isinstance(start, Guide) and not rung.afresh:
            for new, old in zip(guide.flows, start.flows, strict=False):
                new.load_state_dict(old.state_dict())
        yield guide
