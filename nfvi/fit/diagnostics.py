"""How good a fit is: ELBO, Pareto k-hat, importance-sampling efficiency, evidence."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.fit.evaluation import evaluate
from nfvi.guides import AnyGuide
from nfvi.targets import Target
from nfvi.training import Ranks
from nfvi.utils import KHAT_LIMIT, at_once, psislw, tail_length

__all__ = [
    "KHAT_LIMIT",
    "Diagnostics",
    "WeightedDraws",
    "diagnose",
    "draw_weighted",
    "elbo_of",
    "smoothed_weights",
]

# The tail is a fifth of the weights: of fewer than these it has not five, the least that are
# fitted.
FEWEST = 25
# Log-densities of a thousand are rounded to 10⁻⁴ in float32, and so are the weights of an exact
# guide: a tail that small is one of rounding.
EQUAL = 1e-3
# Numbers in float32 for one that is sorted: two in float64 and a place.
SORTED = 6


@dataclass(frozen=True)
class WeightedDraws:
    """Draws from a guide with the log-densities that weigh them.

    Attributes:
        z: draws (n, d), or the first of them where more would not fit into memory and none of the
            rest is needed.
        log_p: log p(z) (n), unnormalised.
        log_q: log q(z) (n).
        log_weights: Pareto-smoothed log weights (n), normalised to sum to 1 when exponentiated.
        khat: shape of the generalised Pareto fitted to the upper tail of the raw weights; −∞
            where the largest weights are equal to 0.1 %, so that there is no tail, and ∞ where
            too few draws have any weight to fit one (fewer than 25, or one quarter of the tail).
        at_edge: share of the draws at which a value of a site sits on an edge of its support.
    """

    z: Tensor
    log_p: Tensor
    log_q: Tensor
    log_weights: Tensor
    khat: float
    at_edge: float = 0.0


@dataclass(frozen=True)
class Diagnostics:
    """Numbers that say how far a guide q is from the target p; Z is the target's normaliser.

    Attributes:
        elbo: E_q[log p − log q] = log Z − KL(q ‖ p), nats.
        elbo_se: its Monte-Carlo standard error.
        khat: Pareto k-hat; below 0.7 importance sampling from q works. −∞ and ∞ as in
            :class:`WeightedDraws`.
        ess: effective draws after importance weighting, (Σw)² / Σw², out of ``draws``.
        draws: how many draws these numbers come from.
        log_evidence: log of the mean raw importance weight, an estimate of log Z.
        log_evidence_se: its standard error by the delta method; too small when k-hat is high.
        not_finite: draws at which log p or log q was NaN or infinite, log p = −∞ apart; they
            are left out of the ELBO and have weight 0.
        widest: the largest distance between the 5 and 95 % quantiles of a coordinate.
        at_edge: share of the draws at which a value of a site was rounded to an edge of its
            support, as a scale that has underflowed to 0.
    """

    elbo: float
    elbo_se: float
    khat: float
    ess: float
    draws: int
    log_evidence: float
    log_evidence_se: float
    not_finite: int = 0
    widest: float = 0.0
    at_edge: float = 0.0

    @property
    def efficiency(self) -> float:
        """Effective draws per draw, in (0, 1]."""
        return self.ess / self.draws

    def as_dict(self) -> dict[str, Any]:
        """Name -> number."""
        return asdict(self)


def elbo_of(log_p: Tensor, log_q: Tensor) -> tuple[float, float]:
    """ELBO and its standard error from log p and log q of draws from q (n); nats."""
    log_ratio = log_p.double() - log_q.double()
    if len(log_ratio) < 2:
        return float(log_ratio.mean()), math.nan
    return float(log_ratio.mean()), float(log_ratio.std() / len(log_ratio) ** 0.5)


def draw_weighted(
    guide: AnyGuide,
    target: Target,
    n: int,
    generator: torch.Generator,
    *,
    keep: int | None = None,
    ranks: Ranks | None = None,
) -> WeightedDraws:
    """n draws with Pareto-smoothed importance weights.

    Args:
        guide: q.
        target: p.
        n: how many.
        generator: of the draws.
        keep: as for :func:`evaluate`.
        ranks: likewise.

    Reference:
        Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, 2024.
    """
    found = evaluate(guide, target, n, generator, keep=keep, edges=True, ranks=ranks)
    log_p, log_q = found.log_p, found.log_q
    usable = log_p.isfinite() | (log_p == -torch.inf)
    usable &= log_q.isfinite() & found.finite
    log_ratio = log_p.double() - log_q.double()
    log_weights, khat = smoothed_weights(torch.where(usable, log_ratio, -torch.inf))
    return WeightedDraws(found.z, log_p, log_q, log_weights, khat, found.at_edge / n)


def diagnose(draws: WeightedDraws) -> Diagnostics:
    """The diagnostics of a guide from weighted draws of it."""
    n = len(draws.log_p)
    log_ratio = draws.log_p.double() - draws.log_q.double()
    bad = ~log_ratio.isfinite() & (draws.log_p != -torch.inf)
    elbo, elbo_se = elbo_of(draws.log_p[~bad], draws.log_q[~bad])
    weights = draws.log_weights.exp()
    log_evidence, log_evidence_se = _evidence(log_ratio[draws.log_weights > -torch.inf], n)
    return Diagnostics(
        elbo=elbo,
        elbo_se=elbo_se,
        khat=draws.khat,
        ess=float(1 / (weights * weights).sum()) if log_evidence > -math.inf else 0.0,
        draws=n,
        log_evidence=log_evidence,
        log_evidence_se=log_evidence_se,
        not_finite=int(bad.sum()),
        widest=_widest(draws.z),
        at_edge=draws.at_edge,
    )


def _widest(z: Tensor) -> float:
    """The largest distance between the 5 and 95 % quantiles of a column (n, d)."""
    n = len(z)
    if not n:  # none were kept
        return 0.0
    low, high = max(n // 20, 1), max(n - n // 20, 1)
    widest = -math.inf
    for columns in z.split(at_once(SORTED * n, z.shape[1], z.device), 1):
        # Sorted, as torch's quantile takes no more than 2²⁴ numbers.
        ordered = columns.double().sort(0).values
        width = (ordered[high - 1] - ordered[low - 1]).nan_to_num(posinf=torch.inf)
        widest = max(widest, float(width.max()))
    return widest


def _evidence(log_ratio: Tensor, n: int) -> tuple[float, float]:
    """log of the mean of n raw weights, of which those not given are 0, and its standard error.

    Raw weights keep the mean unbiased; smoothed ones would trade that for less variance.
    """
    if not len(log_ratio):
        return -math.inf, math.nan
    log_mean = float(log_ratio.logsumexp(0)) - math.log(n)
    deviation = (log_ratio - log_mean).expm1()
    square = float((deviation * deviation).sum()) + (n - len(log_ratio))
    return log_mean, math.sqrt(square) / n


def smoothed_weights(log_ratio: Tensor) -> tuple[Tensor, float]:
    """Pareto-smoothed, normalised log weights (n), and k-hat, from float64 log ratios (n)."""
    used = log_ratio > -torch.inf
    if not bool(used.any()):
        return log_ratio, math.inf
    smoothed, khat = _pareto_smooth(log_ratio[used].cpu().numpy())
    log_weights = log_ratio.clone()
    log_weights[used] = torch.as_tensor(smoothed, device=log_ratio.device)
    return log_weights - log_weights.logsumexp(0), khat


def _pareto_smooth(values: np.ndarray) -> tuple[np.ndarray, float]:
    """ArviZ's PSIS of finite log weights (n), with an answer where no tail can be fitted."""
    n = len(values)
    if n < FEWEST:
        return values, math.inf
    # The tail that ArviZ takes, in units of the largest weight, above the value below it.
    tail = tail_length(n)
    top = np.exp(np.sort(values)[-tail - 1 :] - values.max())
    excess = top[1:] - top[0]
    if excess[-1] < EQUAL:
        return values, -math.inf
    if excess[tail // 4 - 1] <= 0:
        return values, math.inf
    # Quantiles of a very heavy tail overflow on the way to being cut at the largest weight.
    with np.errstate(over="ignore", invalid="ignore"):
        smoothed, khat = psislw(values)
    if np.isnan(smoothed).any() or not math.isfinite(khat):
        return values, math.inf
    return smoothed, khat
