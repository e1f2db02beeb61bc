"""The weights that a mixture of guides should have, by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.diagnostics import smoothed_weights
from nfvi.fit.evaluation import drawn
from nfvi.guides import AnyGuide
from nfvi.targets import Target, log_prob_anywhere

__all__ = ["mixture_weights"]

# A draw in ten thousand: diagnostics would not see the component.
LEAST_WEIGHT = 1e-4
# What no plot shows; copies of one mode differ by less, and so become one.
LEAST_NATS = 0.01
ERRORS = 2.0
# A point is missed where a density falls below a hundredth of what all guides give it together.
THIN = 0.01
# The ELBO hardly sees a small mode: one with a thousandth of the mass is kept whatever it says.
MOST_MISSED = 1e-3
# EM on weights alone is fast where guides do not overlap, and where they do any split will do.
ITERATIONS = 200
CONVERGED = 1e-6
# Guides that are left out on trial before one is dropped, those that matter least first: each trial
# fits all weights again, and of 58 guides that would be 58 fits for each that goes.
TRIED = 6


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
        enough: whether to drop no more guides, because time is up.

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
    points = _points(guides, target, n, generator)
    weights = _fitted(points, points.usable.any(1))
    kept = weights > 0
    best = torch.zeros_like(kept)
    best[int(torch.where(kept, points.elbos(), -torch.inf).argmax())] = True
    if _as_good(points, _fitted(points, best), weights):
        return _fitted(points, best)
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

    def log_mixture(self, weights: Tensor) -> Tensor:
        """Log-density of a mixture at all draws (K, n)."""
        return (self.log_q + weights.log()[:, None, None]).logsumexp(0)

    def terms(self, weights: Tensor) -> Tensor:
        """Σ_k w_k (log p − log q)(x_ki) for each i (n); its mean is the ELBO of the mixture.

        A draw that is not usable stands at the mean of those of its guide that are.
        """
        values = torch.where(self.usable, self.log_p - self.log_mixture(weights), 0)
        used = self.usable.sum(1, keepdim=True).clamp_min(1)
        values = torch.where(self.usable, values, values.sum(1, keepdim=True) / used)
        return (weights[:, None] * values)[weights > 0].sum(0)

    def elbos(self) -> Tensor:
        """ELBO of each guide alone (K); −∞ where none of its draws is usable."""
        alone = torch.eye(len(self.log_p), dtype=self.log_p.dtype, device=self.log_p.device)
        values = torch.stack([self.terms(weights).mean() for weights in alone])
        return torch.where(self.usable.any(1), values, -torch.inf)


@torch.no_grad()
def _points(
    guides: Sequence[AnyGuide], target: Target, n: int, generator: torch.Generator
) -> _Points:
    state = generator.get_state()
    log_ps, log_qs, finite = [], [], []
    for guide in guides:
        # The same base draws for all, so that guides that are alike differ by little noise.
        generator.set_state(state)
        for z, _ in drawn(guide, n, generator):
            log_ps.append(log_prob_anywhere(target, z).detach().double())
            log_qs.append(torch.stack([one.log_prob(z) for one in guides]).double())
            finite.append(z.isfinite().all(-1))
    shape = (len(guides), n)
    log_p, log_q = torch.cat(log_ps).reshape(shape), torch.cat(log_qs, 1).unflatten(1, shape)
    own = log_q.diagonal(dim1=0, dim2=1).mT
    usable = log_p.isfinite() & own.isfinite() & torch.cat(finite).reshape(shape)
    if not bool(usable.any()):
        raise FitError("no draw of the guides has a finite log-density under the target")
    # Another guide has no density where its inverse leaves the range of floats.
    log_q = log_q.nan_to_num(nan=-torch.inf)
    log_ratio = torch.where(usable, log_p - log_q.logsumexp(0), -torch.inf)
    log_omega, _ = smoothed_weights(log_ratio.flatten())
    return _Points(log_q, log_p, usable, log_omega.exp().reshape(log_p.shape))


def _fitted(points: _Points, kept: Tensor) -> Tensor:
    """The weights (K) that minimise KL(p ‖ q), of guides of a mask (K); those too small are 0."""
    log_q, omega = points.log_q[kept].flatten(1), points.omega.flatten()
    top = log_q.amax(0)
    # Draws of a guide that is left out may have no density under the others.
    density = torch.where(top > -torch.inf, log_q - top, -torch.inf).exp()
    found = omega.new_full((len(log_q),), 1 / len(log_q))
    for _ in range(ITERATIONS):
        total = found @ density
        new = found * (density @ torch.where(total > 0, omega / total, 0))
        new = new / new.sum() if float(new.sum()) > 0 else found
        moved = float((new - found).abs().max())
        found = new
        if moved < CONVERGED:
            break
    weights = omega.new_zeros(len(kept))
    weights[kept] = found
    small = kept & (weights < LEAST_WEIGHT)
    return _fitted(points, kept & ~small) if bool(small.any()) else weights


def _without_one(points: _Points, weights: Tensor, enough: Callable[[], bool]) -> Tensor | None:
    """The weights without that guide of those not needed which costs the least ELBO, if any.

    With the shares of the others merely scaled up, a guide that alone covers some mass is seen at
    once, and of the rest the six that cost the least are tried in full.
    """
    scaled: list[tuple[float, Tensor]] = []
    for k in (weights > 0).nonzero()[:, 0].tolist():
        others = weights.clone()
        others[k] = 0
        if float(others.sum()) > 0 and not _misses(points, others / others.sum()):
            scaled.append((float(points.terms(others / others.sum()).mean()), others > 0))
    scaled.sort(key=lambda pair: pair[0], reverse=True)
    found: list[tuple[float, Tensor]] = []
    for _, others in scaled[:TRIED]:
        smaller = _fitted(points, others)
        if _as_good(points, smaller, weights):
            found.append((float(points.terms(smaller).mean()), smaller))
        if enough():
            break
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _misses(points: _Points, weights: Tensor) -> bool:
    """Whether over 0.1 % of the mass has less than a hundredth of the density of all guides."""
    thin = points.log_mixture(weights) < points.everything + math.log(THIN)
    return float(points.omega[thin].sum()) > MOST_MISSED


def _as_good(points: _Points, smaller: Tensor, larger: Tensor) -> bool:
    """Whether a smaller mixture misses no mass, and has the same ELBO within the error."""
    if _misses(points, smaller):
        return False
    lost = points.terms(larger) - points.terms(smaller)
    error = float(lost.std()) / len(lost) ** 0.5
    least: float = max(LEAST_NATS, ERRORS * error)
    return float(lost.mean()) < least
