"""How good a fit is: ELBO, Pareto k-hat, importance-sampling efficiency, evidence."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.guide import Guide
from nfvi.targets.base import Target

__all__ = ["KHAT_LIMIT", "Diagnostics", "WeightedDraws", "diagnose", "draw_weighted", "elbo_of"]

KHAT_LIMIT = 0.7
CHUNK = 4_096


@dataclass(frozen=True)
class WeightedDraws:
    """Draws from a guide with the log-densities that weigh them.

    Attributes:
        z: draws (n, d).
        log_p: log p(z) (n), unnormalised.
        log_q: log q(z) (n).
        log_weights: Pareto-smoothed log weights (n), normalised to sum to 1 when exponentiated.
        khat: shape of the generalised Pareto fitted to the upper tail of the raw weights.
    """

    z: Tensor
    log_p: Tensor
    log_q: Tensor
    log_weights: Tensor
    khat: float


@dataclass(frozen=True)
class Diagnostics:
    """Numbers that say how far a guide q is from the target p; Z is the target's normaliser.

    Attributes:
        elbo: E_q[log p − log q] = log Z − KL(q ‖ p), nats.
        elbo_se: its Monte-Carlo standard error.
        khat: Pareto k-hat; below 0.7 importance sampling from q works.
        ess: effective draws after importance weighting, (Σw)² / Σw², out of ``draws``.
        draws: how many draws these numbers come from.
        log_evidence: log of the mean importance weight, an estimate of log Z.
        log_evidence_se: its standard error by the delta method; too small when k-hat is high.
        not_finite: draws at which log p or log q was NaN or +∞; they were left out.
    """

    elbo: float
    elbo_se: float
    khat: float
    ess: float
    draws: int
    log_evidence: float
    log_evidence_se: float
    not_finite: int = 0

    @property
    def efficiency(self) -> float:
        """Effective draws per draw, in (0, 1]."""
        return self.ess / self.draws

    def as_dict(self) -> dict[str, Any]:
        """Name -> number."""
        return asdict(self)


@torch.no_grad()
def evaluate(
    guide: Guide, target: Target, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """n draws z (n, d), log p(z) (n) and log q(z) (n), in pieces of 4 096."""
    pieces = []
    for start in range(0, n, CHUNK):
        z, log_q = guide.rsample_and_log_prob(min(CHUNK, n - start), generator=generator)
        pieces.append((z, target.log_prob(z).detach(), log_q))
    z, log_p, log_q = (torch.cat(piece) for piece in zip(*pieces, strict=True))
    return z, log_p, log_q


def elbo_of(log_p: Tensor, log_q: Tensor) -> tuple[float, float]:
    """ELBO and its standard error from log p and log q of draws from q (n); nats."""
    log_ratio = (log_p - log_q).double()
    return float(log_ratio.mean()), float(log_ratio.std() / len(log_ratio) ** 0.5)


def draw_weighted(
    guide: Guide, target: Target, n: int, generator: torch.Generator
) -> WeightedDraws:
    """n draws with Pareto-smoothed importance weights.

    Reference:
        Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, 2024.
    """
    z, log_p, log_q = evaluate(guide, target, n, generator)
    usable = log_p.isfinite() | (log_p == -torch.inf)
    usable &= log_q.isfinite() & z.isfinite().all(-1)
    log_weights, khat = _smooth(torch.where(usable, log_p - log_q, -torch.inf))
    return WeightedDraws(z, log_p, log_q, log_weights, khat)


def diagnose(draws: WeightedDraws) -> Diagnostics:
    """The diagnostics of a guide from weighted draws of it."""
    usable = draws.log_weights > -torch.inf
    bad = ~(draws.log_p - draws.log_q).isfinite() & (draws.log_p != -torch.inf)
    elbo, elbo_se = elbo_of(draws.log_p[~bad], draws.log_q[~bad])
    log_ratio = (draws.log_p - draws.log_q).double()[usable]
    n = len(draws.log_p)
    weights = draws.log_weights.exp()
    ess = float(1 / (weights * weights).sum()) if bool(usable.any()) else 0.0
    log_evidence = float(log_ratio.logsumexp(0)) - math.log(n) if len(log_ratio) else -math.inf
    relative = (log_ratio - log_evidence).exp()
    square = float((relative * relative).sum()) / n - 1
    return Diagnostics(
        elbo=elbo,
        elbo_se=elbo_se,
        khat=draws.khat,
        ess=ess,
        draws=n,
        log_evidence=log_evidence,
        log_evidence_se=math.sqrt(max(square, 0.0) / n),
        not_finite=int(bad.sum()),
    )


def _smooth(log_ratio: Tensor) -> tuple[Tensor, float]:
    """Pareto-smoothed, normalised log weights (n) in float64, and k-hat."""
    from arviz_stats.base import array_stats

    values = log_ratio.double()
    if not bool((values > -torch.inf).any()):
        return torch.full_like(values, -torch.inf), math.inf
    spread = float(values.max() - values.min())
    if spread < 1e-9:
        # Equal weights: q = p up to a constant, and there is no tail to fit.
        return torch.full_like(values, -math.log(len(values))), -math.inf
    smoothed, khat = array_stats.psislw(values.cpu().numpy())
    return torch.as_tensor(smoothed, dtype=torch.float64, device=values.device), float(khat)
