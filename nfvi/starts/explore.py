"""Where else the mass of a target may be: Gaussians fitted from scattered starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.starts.gaussian_fit import Arrived, Enough, fit_gaussians, gaussian_elbos, never
from nfvi.starts.starts import Start
from nfvi.targets import Target, costs_by_points

__all__ = ["Modes", "explore", "grouped", "overlap"]

logger = logging.getLogger(__name__)

# Measured on `mixture_10d`, which has 8 modes, and pot1, which has 2, three seeds each: all are
# found, in 113 and 162 batches. What another value of one of them alone did is said below.
# 8 first starts find as many, at half the gradients where there is one mode; 12 later ones lose a
# mode of the mixture in one seed of three. Six rounds are 136 starts, for modes without end.
FIRST, LATER, ROUNDS = 16, 24, 6
# 40 leave a third place on pot1, on the way to a mode; 160 take 62 batches more there for nothing.
STEPS = 80
# In sds. (1, 1.5) loses a mode of the mixture in one seed of three; from too far no start arrives.
WIDE, INFLATED = 3.0, 4.0
# (1,) finds as many modes, and a third place on pot1; the reaches are for modes further out.
FURTHER = (1.0, 2.0, 4.0)
# A mode so far below the best holds a thousandth of its mass.
NATS = 7.0
# Bhattacharyya distance of unit normals 2.8 sds apart. 0.3 splits a mode of pot1; 3 is as good.
SAME = 1.0
# Unit normals 0.9 sds apart. A start so near a known Gaussian, and no longer rising, is one more of
# it; there 11 of 16 starts on GARCH and eight schools are after half of their steps.
ARRIVED = 0.1
# Of two that a flow is to cover together: unit normals nearer than 4.9 sds.
GROUPED = 3.0
# Only their order and a distance of 7 nats are read from them.
COMPARED = 500


@dataclass(frozen=True)
class Modes:
    """Distinct Gaussians that were found, the one of highest ELBO first.

    Attributes:
        loc: μ (K, d), float64.
        tril: L (K, d, d), float64.
        elbos: (K), nats.
        iterations: batched evaluations of the target, one after the other.
        gradient_evaluations: points at which its gradient was taken.
    """

    loc: Tensor
    tril: Tensor
    elbos: Tensor
    iterations: int
    gradient_evaluations: int

    def away_from(self, loc: Tensor, tril: Tensor) -> bool:
        """Whether the best one is another than N(μ, L Lᵀ)."""
        pair = torch.stack([self.loc[0], loc]), torch.stack([self.tril[0], tril])
        return float(overlap(*pair)[0, 1]) > SAME

    def choose(self, index: Tensor) -> Modes:
        """Some of them."""
        cost = self.iterations, self.gradient_evaluations
        return Modes(self.loc[index], self.tril[index], self.elbos[index], *cost)


def explore(
    target: Target,
    start: Start,
    generator: torch.Generator,
    dtype: torch.dtype,
    enough: Enough = never,
) -> Modes:
    """Fit Gaussians from scattered points until a round of them finds nothing new.

    Half of a round starts from N(0, 9 I) with L = I, the other half from the start's Gaussian
    stretched by 4; a third of either starts twice as far away, and a third four times. 16 starts
    come first; if they find a new place, rounds of 24 follow, at most 6 in all. Two
    Gaussians are the same if their Bhattacharyya distance is below 1; those whose ELBO is more
    than 7 nats below the best are left out.

    Args:
        target: log p.
        start: a full-rank Gaussian that is known already.
        generator: of the draws.
        dtype: in which the target is evaluated.
        enough: asked after every batch; a round that is cut short is left out, but for its cost.
    """
    noise = torch.randn(
        COMPARED, target.dim, generator=generator, dtype=dtype, device=generator.device
    )
    found = _known(target, start, noise)
    for turn in range(ROUNDS):
        before = found
        found = _round(target, start, found, LATER if turn else FIRST, generator, noise, enough)
        if enough(found.gradient_evaluations):
            cost = found.iterations, found.gradient_evaluations
            return Modes(before.loc, before.tril, before.elbos, *cost)
        logger.debug("round %d of scattered starts: %d places", turn + 1, len(found.loc))
        if len(found.loc) == len(before.loc):
            break
    logger.info("scattered starts end in %d places", len(found.loc))
    return found


def _known(target: Target, start: Start, noise: Tensor) -> Modes:
    """The start and those that lost to it, as far as they are apart."""
    locs, factors = zip((start.loc, start.tril), *start.others, strict=True)
    loc, tril = torch.stack(locs), torch.stack(factors)
    every = Modes(loc, tril, gaussian_elbos(target, loc, tril, noise), 1, 0)
    return every.choose(_distinct(every))


def _round(
    target: Target,
    start: Start,
    found: Modes,
    count: int,
    generator: torch.Generator,
    noise: Tensor,
    enough: Enough,
) -> Modes:
    shape = count, target.dim
    points = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    turn = torch.arange(count, device=start.loc.device)
    wide = turn % 2 == 0
    reach = torch.tensor(FURTHER, dtype=torch.float64, device=turn.device)[turn // 2 % len(FURTHER)]
    far = points.to(turn.device) * reach[:, None]
    near = start.loc + INFLATED * far @ start.tril.T
    loc = torch.where(wide[:, None], WIDE * far, near)
    tril = torch.where(wide[:, None, None], torch.eye(target.dim).to(loc), start.tril)
    fitted = fit_gaussians(
        target,
        loc,
        tril,
        generator,
        steps=STEPS,
        dtype=noise.dtype,
        enough=lambda more: enough(found.gradient_evaluations + more),
        arrived=_arrives_at(found) if costs_by_points(target) else None,
    )
    loc, tril = torch.cat([found.loc, fitted.loc]), torch.cat([found.tril, fitted.tril])
    elbos = gaussian_elbos(target, loc, tril, noise)
    cost = found.iterations + fitted.iterations, found.gradient_evaluations
    merged = Modes(loc, tril, elbos, cost[0], cost[1] + fitted.gradient_evaluations)
    return merged.choose(_distinct(merged))


def _arrives_at(known: Modes) -> Arrived:
    """Which Gaussians are near one that is known."""

    def arrived(loc: Tensor, tril: Tensor) -> Tensor:
        distance = overlap(torch.cat([loc, known.loc]), torch.cat([tril, known.tril]))
        return (distance[: len(loc), len(loc) :] < ARRIVED).any(1)

    return arrived


def _distinct(modes: Modes) -> Tensor:
    """Indices of those that differ from all better ones, best first."""
    order = modes.elbos.argsort(descending=True)
    order = order[modes.elbos[order] > modes.elbos.max() - NATS]
    distance = overlap(modes.loc, modes.tril)
    kept: list[int] = []
    for index in order.tolist():
        if all(float(distance[index, other]) > SAME for other in kept):
            kept.append(index)
    return torch.tensor(kept or [0], device=modes.loc.device)


def grouped(loc: Tensor, tril: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """One Gaussian for every group of Gaussians that overlap, with the moments of its mixture.

    Two are in one group if their Bhattacharyya distance is below 3 nats, or a chain of such pairs
    leads from one to the other.

    Args:
        loc: μ (K, d).
        tril: L (K, d, d).
        weights: of the Gaussians (K).

    Returns:
        μ (G, d) and L (G, d, d), each group where the first of its Gaussians was.
    """
    eye = torch.eye(len(loc), dtype=torch.bool, device=loc.device)
    reached = (overlap(loc, tril) < GROUPED) | eye
    for _ in range(len(loc).bit_length()):
        reached = reached.double() @ reached.double() > 0
    first = reached.to(torch.uint8).argmax(1)
    locs, factors = [], []
    for index in first.unique().tolist():
        members = first == index
        if int(members.sum()) == 1:
            mean, factor = loc[index], tril[index]
        else:
            mean, factor = _moments(loc[members], tril[members], weights[members])
        locs.append(mean)
        factors.append(factor)
    return torch.stack(locs), torch.stack(factors)


def _moments(loc: Tensor, tril: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of the covariance of a mixture of Gaussians."""
    share = (weights / weights.sum()).to(loc)
    mean = share @ loc
    columns = torch.cat([tril.movedim(0, 1).flatten(1), (loc - mean).T], 1)
    scale = torch.cat([share.repeat_interleave(tril.shape[-1]), share]).sqrt()
    factor = torch.linalg.qr((columns * scale).T).R.T
    return mean, factor * factor.diagonal().sign()


def overlap(loc: Tensor, tril: Tensor) -> Tensor:
    """Bhattacharyya distance of every pair of Gaussians (K, K), nats.

    ⅛ Δᵀ Σ̄⁻¹ Δ + ½ log(|Σ̄| / √(|Σ₁| |Σ₂|)) with Σ̄ = (Σ₁ + Σ₂) / 2; their overlap is exp of minus
    it.

    Reference:
        Bhattacharyya, On a measure of divergence between two statistical populations, 1943.
    """
    covariance = tril @ tril.mT
    middle = 0.5 * (covariance.unsqueeze(0) + covariance.unsqueeze(1))
    factor, info = torch.linalg.cholesky_ex(middle)
    difference = (loc.unsqueeze(0) - loc.unsqueeze(1)).unsqueeze(-1)
    white = torch.linalg.solve_triangular(factor, difference, upper=False)
    half = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    spread = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    spread = spread - 0.5 * (half.unsqueeze(0) + half.unsqueeze(1))
    distance = 0.125 * white.square().sum((-2, -1)) + spread
    return torch.where((info == 0) & distance.isfinite(), distance, torch.inf)
