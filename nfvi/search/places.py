"""From the ends of ascents to distinct places, and the mass that a guide misses there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.guides import AnyGuide
from nfvi.search.ascent import Ends
from nfvi.targets import (
    Target,
    batches_of_laplace,
    laplace_all,
    log_prob_and_score,
    log_prob_anywhere,
)

__all__ = [
    "Gaussians",
    "Weighed",
    "distinct_places",
    "is_crowded",
    "log_q_at",
    "modes_among",
    "weigh",
]

THIN = math.log(3.0)
"""A point is missed where p is more than three times as large as q Z."""
MOST_PLACES = 64
SAME = 1.0
TOO_WIDE, WIDE = 1e6, 50.0
"""Nats by which log p may fall at one sd, where that of a Gaussian falls by 0.5. The curvature at
the mode of −z⁴ is rounding, its sd 6 000 and the fall 1e15: such axes are halved until it is 50.
Curved ridges fall by thousands, and the wide Gaussian is the better one there."""
HALVINGS = 40
DRAWS = 128
SETTLED, MODES = 0.3, 0.75  # sd; of the places
"""Where the gradient moves a Gaussian by less than 0.3 sd an ascent is at a mode. It is so at all
64 places of 2¹⁰ and 2²⁰ wells, and at 0 to 33 of ridges, tails and funnels that are fitted well."""
LEAST_MASS = math.log(1e-12)
"""Of the evidence, at a mode: of 2²⁰ equal ones each has 10⁻⁶, and where one half of each pair has
a sixth of the other's mass, those that ascents come to have 10⁻⁹."""
UNKNOWN = math.log(1e3)
"""A flow that has learned 2²⁰ modes is 7 to 15 times too low at some of the rarest, and one without
a side of a pair e⁵⁰ times."""
NEGLIGIBLE = math.log(1e-6)
"""Of the evidence, by one draw."""


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian at each of K places.

    Attributes:
        loc: (K, d), float64.
        tril: L (K, d, d).
        log_p: of the target there (K).
        iterations: batches of gradients that the curvatures took.
        gradient_evaluations: points at which the gradient was taken.
    """

    loc: Tensor
    tril: Tensor
    log_p: Tensor
    iterations: int = 0
    gradient_evaluations: int = 0

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each at points (n, d): (K, n)."""
        shifted = (x.unsqueeze(0) - self.loc.unsqueeze(1)).mT
        white = torch.linalg.solve_triangular(self.tril, shifted, upper=False)
        volume = self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * self.loc.shape[1] * math.log(2 * math.pi)
        log_prob: Tensor = -0.5 * white.square().sum(1) - volume.unsqueeze(1) - constant
        return log_prob


@dataclass(frozen=True)
class Weighed:
    """The mass at K places, over that which the guide has found.

    Attributes:
        masses: at each (K), where p is over three times q Z.
        error: standard error of their sum.
        evaluations: points at which log p was taken.
    """

    masses: Tensor
    error: float
    evaluations: int


@torch.no_grad()
def log_q_at(guide: AnyGuide, z: Tensor) -> Tensor:
    """log q (n) at points (n, d), float64; −∞ where the inverse of the guide leaves the floats."""
    return guide.log_prob(z.to(guide.dtype)).double().nan_to_num(nan=-torch.inf)


def distinct_places(
    target: Target,
    guide: AnyGuide,
    log_z: float,
    ends: Ends,
    dtype: torch.dtype,
    enough: Callable[[], bool] = lambda: False,
) -> Gaussians:
    """Gaussians at the ends where p is over three times q Z: 64 at most, the highest first.

    Two ends are one place if they are less than 1 apart in the units of BFGS's covariance at the
    higher one. Laplace's approximation gives the Gaussian, or else what BFGS knows; it is narrowed
    where log p falls by over 10⁶ nats within one sd.

    Args:
        target: log p.
        guide: q.
        log_z: log Z as the guide sees it.
        ends: of the ascents.
        dtype: in which the target is evaluated.
        enough: asked before every batch of curvatures whether to end early.
    """
    missed = ends.log_p - log_q_at(guide, ends.z) - log_z > THIN
    order = ends.log_p.argsort(descending=True)
    rest = order[missed[order] & ends.log_p[order].isfinite()]
    kept: list[int] = []
    factors: list[Tensor] = []
    batches = curvatures = 0
    while len(rest) and len(kept) < MOST_PLACES and not enough():
        # As many more as there are: of ends that are all one place, few curvatures are in vain.
        some, rest = rest.split([n := min(len(kept) + 1, len(rest)), len(rest) - n])
        first = len(kept)
        for index, factor in zip(some.tolist(), _factors(target, ends, some, dtype), strict=True):
            if factor is None or len(kept) == MOST_PLACES:
                continue
            new = ends.z[kept[first:]], factors[first:]
            if new[1] and bool(_are_known(ends.z[index : index + 1], *new)):
                continue
            kept.append(index)
            factors.append(factor)
        curvatures += len(some)
        batches += batches_of_laplace(len(some), ends.z.shape[1])
        if len(kept) > first:
            rest = rest[~_are_known(ends.z[rest], ends.z[kept[first:]], factors[first:])]
    loc = ends.z[kept]
    tril = torch.stack(factors) if factors else ends.covariance[:0]
    cost = batches, 2 * loc.shape[1] * curvatures
    return Gaussians(loc, tril, ends.log_p[kept], *cost)


def _are_known(z: Tensor, places: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Which of m points (m, d) are less than 1 from one of K Gaussians, in its units: (m,) bool."""
    shifted = (z.unsqueeze(0) - places.unsqueeze(1)).mT
    white = torch.linalg.solve_triangular(torch.stack(list(factors)), shifted, upper=False)
    known: Tensor = (white.square().sum(1) < SAME**2).any(0)
    return known


def _factors(
    target: Target, ends: Ends, indices: Tensor, dtype: torch.dtype
) -> list[Tensor | None]:
    """L (d, d) of a Gaussian at each of some ends; ``None`` where no curvature is known."""
    found = laplace_all(target, ends.z[indices], dtype)
    known, infos = torch.linalg.cholesky_ex(ends.covariance[indices])
    for i, info in enumerate(infos.tolist()):
        if found[i] is None and not info:
            found[i] = known[i]
    there = [i for i, tril in enumerate(found) if tril is not None]
    if there:
        tril = torch.stack([tril for tril in found if tril is not None])
        narrowed = _narrowed(target, ends.z[indices[there]], tril, dtype)
        for i, tril in zip(there, narrowed, strict=True):
            found[i] = tril
    return found


@torch.no_grad()
def _narrowed(target: Target, modes: Tensor, tril: Tensor, dtype: torch.dtype) -> Tensor:
    """L (K, d, d) of Gaussians; their sds are halved where log p falls far too much within one."""
    variance, axes = torch.linalg.eigh(tril @ tril.mT)
    sd = variance.clamp_min(0).sqrt()
    top = log_prob_anywhere(target, modes.to(dtype)).double()
    limit = torch.full_like(top, TOO_WIDE)
    moving = torch.arange(len(modes), device=modes.device)
    for _ in range(HALVINGS):
        offsets = (axes[moving] * sd[moving].unsqueeze(1)).mT
        near = modes[moving].unsqueeze(1) + torch.cat([offsets, -offsets], 1)
        log_p = log_prob_anywhere(target, near.flatten(0, 1).to(dtype)).double()
        lowest = log_p.nan_to_num(nan=-torch.inf).reshape(len(moving), 2, -1).amin(1)
        over = top[moving].unsqueeze(1) - lowest > limit[moving].unsqueeze(1)
        moving, over = moving[over.any(1)], over[over.any(1)]
        if not len(moving):
            break
        limit[moving] = WIDE
        sd[moving] = torch.where(over, sd[moving] / 2, sd[moving])
    upper = torch.linalg.qr((axes * sd.unsqueeze(1)).mT)[1]
    lower = (upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)).mT
    narrowed: Tensor = torch.where((limit == TOO_WIDE)[:, None, None], tril, lower)
    return narrowed


def modes_among(target: Target, log_z: float, places: Gaussians, dtype: torch.dtype) -> Tensor:
    """Which of K places are modes with mass, and no points on a ridge or in a tail: (K,) bool.

    Args:
        target: log p.
        log_z: log Z as the guide sees it.
        places: the Gaussians.
        dtype: in which the target is evaluated.
    """
    if not len(places.loc):
        return torch.zeros(0, dtype=torch.bool, device=places.loc.device)
    _, score = log_prob_and_score(target, places.loc.to(dtype))
    pull = (places.tril.mT @ score.double().unsqueeze(-1)).squeeze(-1).norm(dim=1)
    volume = places.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    mass = places.log_p + volume + 0.5 * places.loc.shape[1] * math.log(2 * math.pi) - log_z
    modes: Tensor = (pull < SETTLED) & (mass > LEAST_MASS)
    return modes


def is_crowded(modes: Tensor, excess: Tensor) -> bool:
    """Whether there are as many places as are looked at, and three in four are unknown modes.

    There are more then, and what is missed at those that were looked at says little of them all.

    Args:
        modes: which of the places are modes.
        excess: log p − log q − log Z at each.
    """
    unknown = modes & (excess > UNKNOWN)
    return len(modes) >= MOST_PLACES and float(unknown.double().mean()) >= MODES


@torch.no_grad()
def weigh(
    target: Target,
    guide: AnyGuide,
    log_z: float,
    places: Gaussians,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> Weighed:
    """The mass where p is over three times q Z, by importance sampling from all places together.

    128 draws from each of the K Gaussians count as draws of their mixture, so that places which
    overlap are not counted twice::

        M = 1/n Σ_i p(x_i) / (Z g(x_i)) [p(x_i) > 3 q(x_i) Z],    g = Σ_k N_k / K

    Draws with a term below 10⁻⁶ are left out, which takes less than 10⁻⁶ from M.

    Args:
        target: log p.
        guide: q.
        log_z: log Z as the guide sees it.
        places: the Gaussians.
        generator: of the draws.
        dtype: in which the target is evaluated.

    Reference:
        Veach and Guibas, Optimally combining sampling techniques for Monte Carlo rendering, 1995.
    """
    k, d = places.loc.shape
    shape = k, DRAWS, d
    noise = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    x = (places.loc.unsqueeze(1) + noise.to(places.loc.device) @ places.tril.mT).flatten(0, 1)
    log_p = log_prob_anywhere(target, x.to(dtype)).double()
    log_parts = places.log_prob(x)
    log_g = log_parts.logsumexp(0) - math.log(k)
    log_weights = torch.where(
        log_p.isfinite() & log_g.isfinite(), log_p - log_z - log_g, -torch.inf
    )
    # To invert a flow is what costs here, and of most draws in the tails there is nothing to miss.
    worth = (log_weights > NEGLIGIBLE).nonzero()[:, 0]
    missed = worth[log_p[worth] - log_q_at(guide, x[worth]) - log_z > THIN]
    weights = torch.zeros_like(log_p)
    weights[missed] = log_weights[missed].exp() / len(x)
    masses = (log_parts.softmax(0) * weights).sum(1)
    error = float(weights.std() * len(x) ** 0.5)
    return Weighed(masses, error, len(x))
