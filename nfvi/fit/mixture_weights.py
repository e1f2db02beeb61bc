"""The weights that a mixture of guides should have, by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.diagnostics import smoothed_weights
from nfvi.fit.evaluation import drawn
from nfvi.guides import AnyGuide
from nfvi.targets import Target, log_prob_anywhere
from nfvi.utils import at_once

__all__ = ["draws_of_each", "mixture_weights"]

# A draw in ten thousand: diagnostics would not see the component.
LEAST_WEIGHT = 1e-4
# What no plot shows; copies of one mode differ by less, and so become one.
LEAST_NATS = 0.01
ERRORS = 2.0
# A point is missed where a density falls below a hundredth of what all guides give it together.
THIN = 0.01
# The ELBO hardly sees a small mode: one with a thousandth of the mass is kept whatever it says.
MOST_MISSED = 1e-3
# EM on weights alone is fast where guides do not overlap, and where they do any split will do. The
# log of its largest factor, by which a weight is to grow, is more than is left to gain in nats of
# KL(p ‖ q) (Lindsay, The geometry of mixture likelihoods, 1983).
ITERATIONS = 200
CONVERGED = 1e-3
# Guides that are left out on trial before one is dropped, those that matter least first: each trial
# fits all weights again, and of 58 guides that would be 58 fits for each that goes.
TRIED = 6
DRAWS, LEAST_DRAWS, DRAWS_IN_ALL = 2_000, 200, 40_000
CHUNK = 16_384
ROUNDING = 1e-12
# Of the density of all guides: draws of those that are left out may have none under the others.
LEAST_DENSITY = 1e-290


def draws_of_each(count: int) -> int:
    """How many draws of each of so many guides give their weights: 2 000, or fewer above 20 guides.

    By 2 000 a weight of 5 % is known to a tenth of it. All guides are evaluated at all draws, so
    that more than 40 000 in all would take the square of their number.
    """
    return min(max(DRAWS_IN_ALL // count, LEAST_DRAWS), DRAWS)


def mixture_weights(
    guides: Sequence[AnyGuide],
    target: Target,
    n: int,
    generator: torch.Generator,
    enough: Callable[[], bool] = lambda: False,
) -> Tensor:
    """The weights of the mixture of K guides that is nearest to a target; 0 for those not needed.

    With x_i the draws of all guides, n each, q̄ = Σ_k q_k / K the mixture they come from, and
    ω_i ∝ p(x_i) / q̄(x_i), Pareto-smoothed and summing to 1, the weights maximise
    Σ_i ω_i log Σ_k w_k q_k(x_i), that is, they minimise KL(p ‖ q). The problem is convex, and
    w_k ← Σ_i ω_i r_k(x_i) with the responsibilities r_k = w_k q_k / Σ_j w_j q_j solves it. Of
    guides that do not overlap, each has the share of the target's mass that it found; guides that
    do overlap share what they found.

    A guide is dropped if its weight falls below 1e-4 or none of its draws has a finite
    log-density. Then guides that are not needed are dropped one by one, first the one that costs
    the least ELBO, and the weights of the others are found anew. A guide is not needed if without
    it

    - the ELBO is less than 0.01 nats lower, or less than 2 standard errors of the difference, and
    - less than 0.1 % of the target's mass lies where the mixture has less than a hundredth of the
      density of all guides together.

    So copies of one guide become one, a lesser fit of the same mode goes, and a small mode stays,
    which the ELBO hardly sees. The best guide alone is tried first.

    Args:
        guides: q_k, which may be mixtures themselves.
        target: p.
        n: draws from each guide; all from the same random numbers.
        generator: of the draws.
        enough: whether time is up: guides of which there are no draws yet get no weight then, and
            no more are dropped.

    Returns:
        w (K), float64, on the device of the guides; they sum to 1.

    Raises:
        ValueError: there is no guide.
        FitError: no draw of any guide has a finite log-density.

    Reference:
        Veach and Guibas, Optimally combining sampling techniques for Monte Carlo rendering, 1995.
        Cappé, Douc, Guillin, Marin and Robert, Adaptive importance sampling in general mixture
        classes, 2008.
    """
    if not guides:
        raise ValueError("guides must hold at least one guide")
    points = _points(guides, target, n, generator, enough)
    weights = _needed(points, enough)
    rest = weights.new_zeros(len(guides) - len(weights))
    return torch.cat([weights, rest])


def _needed(points: _Points, enough: Callable[[], bool]) -> Tensor:
    """The weights of the guides that there are draws of."""
    weights = _fitted(points, points.usable.any(1).double(), enough)
    best = torch.zeros_like(weights)
    best[int(torch.where(weights > 0, points.elbos(), -torch.inf).argmax())] = 1
    if _as_good(points, best, weights):
        return best
    while int((weights > 0).sum()) > 1:
        smaller = None if enough() else _without_one(points, weights, enough)
        if smaller is None:
            break
        weights = smaller
    return weights


@dataclass(frozen=True)
class _Points:
    """Draws of K guides, n each, and what is known of them.

    Attributes:
        log_q: log-density of each guide (K) at each draw (K, n): (K, K, n), float64.
        log_p: of the target (K, n), float64.
        usable: draws at which all of these are finite (K, n).
        omega: importance weights (K, n) of all draws together.
    """

    log_q: Tensor
    log_p: Tensor
    usable: Tensor
    omega: Tensor

    @cached_property
    def everything(self) -> Tensor:
        """Log-density of all guides together, in equal shares, at all draws (K, n)."""
        return self.log_q.logsumexp(0) - math.log(len(self.log_q))

    @cached_property
    def density(self) -> Tensor:
        """Density of each guide by that of all together, from 0 to K: (K, K · n)."""
        return (self.log_q - self.everything).exp().nan_to_num(0.0).flatten(1)

    def log_mixture(self, weights: Tensor) -> Tensor:
        """Log-density of a mixture at all draws (K, n).

        It is −∞ where that is not a 1e-308th of the density of all guides together.
        """
        return self.everything + (weights @ self.density).log().reshape(self.everything.shape)

    def without_each(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each guide of a mixture: the weights without it, and log-density at all draws (K, n).

        The others are scaled up: Σ_j≠k w_j q_j = (1 − r_k) q for the responsibility r_k of guide k.
        """
        log_mixture = self.log_mixture(weights)
        for k in (weights > 0).nonzero()[:, 0].tolist():
            others = weights.clone()
            others[k] = 0
            rest = float(others.sum())
            if rest > 0:
                share = (self.log_q[k] + weights[k].log() - log_mixture).exp().nan_to_num(0.0)
                left = torch.log1p(-share.clamp_max(1 - ROUNDING))
                yield others / rest, log_mixture + left - math.log(rest)

    def terms(self, weights: Tensor, log_mixture: Tensor | None = None) -> Tensor:
        """Σ_k w_k (log p − log q)(x_ki) for each i (n); its mean is the ELBO of the mixture.

        A draw that is not usable stands at the mean of those of its guide that are.
        """
        log_mixture = self.log_mixture(weights) if log_mixture is None else log_mixture
        values = torch.where(self.usable, self.log_p - log_mixture, 0)
        used = self.usable.sum(1, keepdim=True).clamp_min(1)
        values = torch.where(self.usable, values, values.sum(1, keepdim=True) / used)
        return (weights[:, None] * values)[weights > 0].sum(0)

    def elbos(self) -> Tensor:
        """ELBO of each guide alone (K); −∞ where none of its draws is usable."""
        values = torch.where(self.usable, self.log_p - _own(self.log_q), 0).sum(1)
        used = self.usable.sum(1)
        return torch.where(used > 0, values / used.clamp_min(1), -torch.inf)


def _own(log_q: Tensor) -> Tensor:
    """Log-density of each guide at its own draws (K, n)."""
    return log_q.diagonal(dim1=0, dim2=1).mT


@torch.no_grad()
def _points(
    guides: Sequence[AnyGuide],
    target: Target,
    n: int,
    generator: torch.Generator,
    enough: Callable[[], bool],
) -> _Points:
    """Draws of the guides, or of as many of the first as there was time for."""
    state = generator.get_state()
    draws: list[Tensor] = []
    log_ps: list[Tensor] = []
    count = 0
    for guide in guides:
        # The same base draws for all, so that guides that are alike differ by little noise.
        generator.set_state(state)
        for z, _ in drawn(guide, n, generator):
            draws.append(z)
            log_ps.append(log_prob_anywhere(target, z).detach().double())
        count += 1
        if enough():
            break
    shape = (count, n)
    pieces = torch.cat(draws).split(at_once(draws[0].shape[1], CHUNK, draws[0].device))
    log_q = torch.stack(
        [torch.cat([guide.log_prob(z).double() for z in pieces]) for guide in guides[:count]]
    ).unflatten(1, shape)
    log_p = torch.cat(log_ps).reshape(shape)
    finite = torch.cat([z.isfinite().all(-1) for z in pieces]).reshape(shape)
    usable = log_p.isfinite() & _own(log_q).isfinite() & finite
    if not bool(usable.any()):
        raise FitError("no draw of the guides has a finite log-density under the target")
    # Another guide has no density where its inverse leaves the range of floats.
    log_q = log_q.nan_to_num(nan=-torch.inf)
    log_ratio = torch.where(usable, log_p - log_q.logsumexp(0), -torch.inf)
    log_omega, _ = smoothed_weights(log_ratio.flatten())
    return _Points(log_q, log_p, usable, log_omega.exp().reshape(log_p.shape))


def _fitted(points: _Points, start: Tensor, enough: Callable[[], bool] = lambda: False) -> Tensor:
    """The weights (K) that minimise KL(p ‖ q), from a start (K); those of 0 or too small are 0."""
    kept = start > 0
    density, omega = points.density[kept], points.omega.flatten()
    found = start[kept] / start.sum()
    for _ in range(ITERATIONS):
        total = found @ density
        factor = density @ torch.where(total > LEAST_DENSITY, omega / total, 0)
        new = found * factor
        if not float(new.sum()) > 0:
            break
        found = new / new.sum()
        if float(factor.max()) < 1 + CONVERGED or enough():
            break
    weights = omega.new_zeros(len(kept))
    weights[kept] = found
    small = kept & (weights < LEAST_WEIGHT)
    return _fitted(points, weights.where(~small, 0.0), enough) if bool(small.any()) else weights


def _without_one(points: _Points, weights: Tensor, enough: Callable[[], bool]) -> Tensor | None:
    """The weights without that guide of those not needed which costs the least ELBO, if any.

    With the shares of the others merely scaled up, a guide that alone covers some mass is seen at
    once, and of the rest the six that cost the least are tried in full.
    """
    scaled: list[tuple[float, Tensor]] = []
    for others, log_mixture in points.without_each(weights):
        if enough():
            return None
        if not _misses(points, log_mixture):
            scaled.append((float(points.terms(others, log_mixture).mean()), others))
    scaled.sort(key=lambda pair: pair[0], reverse=True)
    found: list[tuple[float, Tensor]] = []
    for _, others in scaled[:TRIED]:
        smaller = _fitted(points, others, enough)
        if _as_good(points, smaller, weights):
            found.append((float(points.terms(smaller).mean()), smaller))
        if enough():
            break
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _misses(points: _Points, log_mixture: Tensor) -> bool:
    """Whether over 0.1 % of the mass has less than a hundredth of the density of all guides."""
    thin = log_mixture < points.everything + math.log(THIN)
    return float(points.omega[thin].sum()) > MOST_MISSED


def _as_good(points: _Points, smaller: Tensor, larger: Tensor) -> bool:
    """Whether a smaller mixture misses no mass, and has the same ELBO within the error."""
    log_mixture = points.log_mixture(smaller)
    if _misses(points, log_mixture):
        return False
    lost = points.terms(larger) - points.terms(smaller, log_mixture)
    error = float(lost.std()) / len(lost) ** 0.5
    least: float = max(LEAST_NATS, ERRORS * error)
    return float(lost.mean()) < least
