"""The search for mass that a guide misses: wide draws, ascents from the best, and what is there."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nfvi.guides import AnyGuide
from nfvi.search.ascent import Ends, ascend_all
from nfvi.search.improper import is_improper
from nfvi.search.places import (
    THIN,
    Gaussians,
    Weighed,
    distinct_places,
    is_crowded,
    log_q_at,
    modes_among,
    weigh,
)
from nfvi.search.result import MissedMass, Place
from nfvi.search.wide import REACH, Prior, moments, prior_scale, wide_draws
from nfvi.targets import Target, affordable, log_prob_anywhere, numbers_per_point
from nfvi.utils import at_once, sizes

__all__ = ["search_mass"]

logger = logging.getLogger(__name__)

DRAWS = 131_072
"""Of 28 multimodal targets whose fit misses a mode, 16 000 draws find 13, 131 000 find 19."""
FEW_DIMENSIONS = 5
DRAWS_FEW_DIMENSIONS = 2_097_152
"""In d = 5 a mode of sd 0.1 at 6 sds is met by 2 of a million: one of 8 seeds would miss it."""
FEWEST_DRAWS = 8_192
WORK = 2e8
"""Numbers that the operations of log p may write for the draws: 0.1 to 0.4 s on one core."""
STARTS = (16, 512)
"""At least and at most: one for 64 draws."""
SHARE = 0.5
"""Of the work of the diagnostics, where a target is a sum over many rows."""
DRAWS_OF_A_LOOP = 1_024
NUMBERS = 2**23
"""Of all inverse Hessians side by side: 512 starts up to d = 128, 93 at d = 300."""
NUMBERS_ALONE = 2**28
"""Of the wide draws where no ascents follow, from which nothing is learned but errors."""
CHUNK = 16_384
WIDE = 4
"""Numbers in float32 for one of a wide draw, which is in float64: pieces of 16 384 to d = 512."""
PROBES = 32
BINS = 16
SOME = 65_536
"""Draws that tell quantiles: each ring has its sixteenth to a few per cent."""
POOL = 16
"""Draws for each start among which those are sought that the guide misses."""
OWN_DRAWS = 4_096
OUTERMOST = 0.02
"""Of the ends on either side: ascents in a tail may not have come far."""
FOUND = "search of %s: %d wide draws, %d ascents, %d places, share of the mass missed %.4f"


def draws_for(target: Target, z: Tensor) -> int:
    """How many wide draws a target is worth: fewer where each is much work.

    Args:
        target: log p.
        z: some points (n, d) at which it is finite.
    """
    if target.batching == "loop":
        return DRAWS_OF_A_LOOP
    most = DRAWS_FEW_DIMENSIONS if target.dim <= FEW_DIMENSIONS else DRAWS
    least = affordable(target, FEWEST_DRAWS, SHARE)
    return max(min(most, int(WORK / max(numbers_per_point(target, z), 1.0))), least)


def search_mass(
    guide: AnyGuide,
    target: Target,
    log_evidence: float,
    generator: torch.Generator,
    *,
    draws: int | None = None,
    starts: int | None = None,
    most: int | None = None,
    prior_of: Callable[[Target, torch.Generator], Prior | None] = prior_scale,
    enough: Callable[[int], bool] = lambda _: False,
) -> MissedMass:
    """Look for mass of a target p where a guide q has none.

    1. Values of log p at wide draws, see :func:`~nfvi.search.wide.wide_draws`.
    2. Of draws at like distance from the guide, those of highest log p start ascents by BFGS, up
       to half of them where p > 3 q Z.
    3. At each distinct end with p > 3 q Z, Laplace's approximation, corrected by importance
       sampling, gives the mass that q misses.
    4. What the weights of the guide's own draws show already is taken away.
    5. Where ascents end equally high and far apart, others from ever farther along that line say
       whether the target is improper.

    Args:
        guide: q.
        target: p.
        log_evidence: log Z as the guide sees it.
        generator: of all draws.
        draws: wide draws; default 131 072, or 2 097 152 in up to 5 dimensions, but fewer of a
            target that takes much work, and 8 192 at least.
        most: the default number of draws is no larger.
        starts: of ascents; default one for 64 draws, from 16 to 512. They are fewer above 128
            dimensions, and none above 300.
        prior_of: finds median and scale of the prior; that of several searches of one target may
            remember them.
        enough: asked after every batch, with the gradients so far, whether to end early.
    """
    dtype = guide.dtype
    loc, tril = moments(guide, generator)
    if not math.isfinite(log_evidence):
        return _nothing(log_evidence)
    alone = tril.dim() == 1 and len(loc) > 1
    if draws is None:
        draws = draws_for(target, guide.sample(PROBES, generator=generator))
        draws = min(draws, draws if most is None else most)
        draws = max(min(draws, NUMBERS_ALONE // len(loc)), 1) if alone else draws
    prior = prior_of(target, generator)
    if starts is None:
        starts = min(max(draws // 64, STARTS[0]), STARTS[1])
    starts = 0 if alone else min(starts, NUMBERS // len(loc) ** 2)
    z, log_p, seen = _scan(target, loc, tril, prior, draws, generator, dtype, enough, starts > 0)
    chosen = _choose(guide, log_evidence, z, log_p, _rings(z, loc, tril), starts)
    ends = ascend_all(target, z[chosen], dtype, enough)
    places = distinct_places(
        target, guide, log_evidence, ends, dtype, lambda: enough(ends.gradient_evaluations)
    )
    modes = modes_among(target, log_evidence, places, dtype)
    above = _above(guide, places, log_evidence)
    spent = ends.gradient_evaluations + places.gradient_evaluations + len(modes)
    improper, *more = is_improper(
        target, ends, partial(_white, loc=loc, tril=tril), dtype, lambda n: enough(spent + n)
    )
    cost = ends.iterations + places.iterations + bool(len(modes)) + more[0], spent + more[1]
    found, own = Weighed(loc.new_zeros(0), 0.0, 0), 0.0
    if len(places.loc):
        found = weigh(target, guide, log_evidence, places, generator, dtype)
        own = _own_share(guide, target, log_evidence, generator)
    excess = max(float(found.masses.sum()) - own, 0.0)
    share = excess / (1 + excess)
    logger.info(FOUND, target.name, seen, len(chosen), len(places.loc), share)
    return MissedMass(
        places=_told(places, found, modes, above),
        share=share,
        share_se=found.error / (1 + excess) ** 2,
        log_evidence=log_evidence + math.log1p(excess),
        guide_log_evidence=log_evidence,
        draws=seen,
        starts=len(chosen),
        reach=max(REACH),
        batched_evaluations=cost[0],
        gradient_evaluations=cost[1],
        cut=enough(cost[1]),
        prior=prior is not None,
        crowded=is_crowded(modes, above),
        improper=improper,
        extent=_extent(ends),
    )


def _above(guide: AnyGuide, places: Gaussians, log_z: float) -> Tensor:
    """log p − log q − log Z at the places (K)."""
    if not len(places.loc):
        return places.log_p
    return places.log_p - log_q_at(guide, places.loc) - log_z


def _extent(ends: Ends) -> tuple[Tensor, Tensor] | None:
    """All but the outermost of the ends, coordinate by coordinate."""
    z = ends.z[ends.log_p.isfinite()]
    if not len(z):
        return None
    low, high = z.quantile(z.new_tensor([OUTERMOST, 1 - OUTERMOST]), dim=0)
    return low, high


def _nothing(log_evidence: float) -> MissedMass:
    nan = math.nan
    return MissedMass((), nan, nan, nan, log_evidence, 0, 0, max(REACH), 0, 0)


@torch.no_grad()
def _scan(
    target: Target,
    loc: Tensor,
    tril: Tensor,
    prior: Prior | None,
    draws: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    enough: Callable[[int], bool],
    keep: bool,
) -> tuple[Tensor, Tensor, int]:
    """Wide draws (n, d) and log p (n) there, in pieces; −∞ where that is no number.

    Without ``keep`` none are held; how many there were is said in any case.
    """
    pieces, seen = [(loc.new_zeros(0, len(loc)), loc.new_zeros(0))], 0
    for size in sizes(draws, at_once(WIDE * len(loc), CHUNK, loc.device)):
        z = wide_draws(loc, tril, prior, size, generator)
        log_p = log_prob_anywhere(target, z.to(dtype)).double()
        seen += size
        if keep:
            pieces.append((z, torch.where(log_p.isfinite(), log_p, -torch.inf)))
        if enough(0):
            break
    z, log_p = (torch.cat(piece) for piece in zip(*pieces, strict=True))
    return z, log_p, seen


def _choose(
    guide: AnyGuide, log_z: float, z: Tensor, log_p: Tensor, around: list[Tensor], starts: int
) -> Tensor:
    """Indices of the draws that ascents start from, among those at like distance from the guide.

    Up to half are those of highest log p where the guide has almost no mass: of many modes of equal
    height, those that it knows would take all starts. The others are of highest log p anywhere.
    """
    pool = _highest(around, log_p, POOL * starts)
    missed = pool[log_p[pool] - log_q_at(guide, z[pool]) - log_z > THIN]
    there = torch.full_like(log_p, -torch.inf)
    there[missed] = log_p[missed]
    first = _highest(around, there, starts // 2)
    elsewhere = log_p.clone()
    elsewhere[first] = -torch.inf
    return torch.cat([first, _highest(around, elsewhere, starts - len(first))])


def _rings(z: Tensor, loc: Tensor, tril: Tensor) -> list[Tensor]:
    """Indices of draws in groups of like distance from a Gaussian, as many in each, or nearly."""
    distance = _white(z, loc, tril).square().sum(1)
    # Quantiles of some draws: to sort two million takes a third of the time of a search.
    inner = torch.linspace(0, 1, BINS + 1, dtype=distance.dtype, device=distance.device)[1:-1]
    edges = distance[:SOME].quantile(inner) if len(z) else inner
    ring = torch.bucketize(distance, edges).to(torch.uint8)
    return list(ring.argsort(stable=True).split(ring.bincount(minlength=BINS).tolist()))


def _highest(groups: list[Tensor], log_p: Tensor, count: int) -> Tensor:
    """Indices of so many draws of the highest finite log p, as many from each group."""
    each, more = divmod(count, len(groups))
    best = []
    for k, part in enumerate(groups):
        top = log_p[part].topk(min(each + (k < more), len(part)))
        best.append(part[top.indices[top.values > -torch.inf]])
    return torch.cat(best)


def _white(z: Tensor, loc: Tensor, tril: Tensor) -> Tensor:
    """Points (n, d) in sds of a Gaussian, from its mean."""
    if tril.dim() == 1:
        return (z - loc) / tril
    solved: Tensor = torch.linalg.solve_triangular(tril, (z - loc).T, upper=False)
    return solved.T


@torch.no_grad()
def _own_share(guide: AnyGuide, target: Target, log_z: float, generator: torch.Generator) -> float:
    """What of the weight of the guide's own draws lies where p is over three times q Z."""
    x, log_q = guide.rsample_and_log_prob(OWN_DRAWS, generator=generator)
    ratio = log_prob_anywhere(target, x).double() - log_q.double()
    ratio = torch.where(ratio.isfinite(), ratio, -torch.inf)
    weights = ratio.softmax(0).nan_to_num(0.0)
    return float(weights[ratio - log_z > THIN].sum())


def _told(places: Gaussians, found: Weighed, modes: Tensor, above: Tensor) -> tuple[Place, ...]:
    """The places in falling order of their share, with how far log p is above log q + log Z."""
    shares = found.masses / (1 + found.masses.sum())
    order = shares.argsort(descending=True).tolist()
    return tuple(
        Place(
            places.loc[i],
            float(places.log_p[i]),
            float(shares[i]),
            float(above[i]),
            places.tril[i],
            bool(modes[i]),
        )
        for i in order
        if float(shares[i]) > 0
    )
