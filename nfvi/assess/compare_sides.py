"""What a comparison needs of a fit or a run: draws on both scales, their worth, their price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nfvi.fit import Approximation
from nfvi.mcmc import MCMCRun, ess
from nfvi.targets import Target
from nfvi.utils import fresh_draws, hdi, label_of

__all__ = ["Moments", "Side", "exact_side", "moments", "side_of"]


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        label: the formula of a fit, ``"NUTS"``, ``"HMC"`` or ``"exact"``.
        target: what the draws are of.
        draws: (n, d), on unconstrained space, chain after chain.
        chains: how many chains these are; 1 for independent draws.
        independent: whether the draws are independent.
        seconds: what they cost; nan if unknown, or nothing.
        effective: effective draws bought by these seconds, one number for all scalars, or per site
            (\\*event).
        worst_rhat: the largest R-hat; nan for independent draws.
        verdict: the word for a fit; empty for all else.
    """

    label: str
    target: Target
    draws: Tensor
    chains: int
    independent: bool
    seconds: float
    effective: float | Mapping[str, Tensor]
    worst_rhat: float
    verdict: str = ""

    @cached_property
    def sites(self) -> dict[str, Tensor]:
        """The draws on the constrained scale: site -> (n, \\*event)."""
        with torch.no_grad():
            return self.target.constrain(self.draws)

    def relabelled(self, label: str) -> Side:
        """The same side under another name."""
        return replace(self, label=label)

    def ess_per_second(self, site: str, k: int) -> float:
        """Effective draws per second of scalar k of a site; nan if unknown."""
        if isinstance(self.effective, Mapping):
            return float(self.effective[site].flatten()[k]) / self.seconds
        return self.effective / self.seconds

    @property
    def least_ess(self) -> float:
        """Effective draws: one number for all scalars, or else that of the worst one."""
        if not isinstance(self.effective, Mapping):
            return self.effective
        least = [float(x.nan_to_num(math.inf).min()) for x in self.effective.values() if x.numel()]
        return min(least, default=math.nan)


@dataclass(frozen=True)
class Moments:
    """Of one scalar: mean, sd, 94 % interval of highest density; errors of mean and log sd."""

    mean: float
    sd: float
    hdi_low: float
    hdi_high: float
    mean_se: float
    log_sd_se: float


def side_of(posterior: Any, n: int, seed: int) -> Side:
    """A fit or run as a side; a run gives all of its draws, a fit n fresh ones.

    Raises:
        TypeError: posterior is not one that can be compared.
        ValueError: it has no target, or its draws are not (n, d).
    """
    if isinstance(posterior, MCMCRun):
        return _side_of_run(posterior)
    draws = fresh_draws(posterior, n, seed)
    return Side(
        label=label_of(posterior),
        target=posterior.target,
        draws=draws,
        chains=1,
        independent=True,
        seconds=float(getattr(posterior, "wall_time", math.nan)),
        effective=float(getattr(posterior, "ess", math.nan)),
        worst_rhat=math.nan,
        verdict=posterior.verdict.word if isinstance(posterior, Approximation) else "",
    )


def exact_side(target: Target, n: int, seed: int, like: Tensor) -> Side:
    """n exact draws of a target that has a sampler, in the dtype and on the device of ``like``."""
    generator = torch.Generator(device=like.device).manual_seed(seed)
    draws = target.sample(n, generator=generator, dtype=like.dtype, device=like.device)
    return Side("exact", target, draws.detach(), 1, True, math.nan, math.nan, math.nan)


def moments(side: Side, x: Tensor) -> Moments:
    """Moments of one scalar of a side, with their Monte-Carlo errors.

    The error of the mean is sd/√ESS, and that of log sd √((κ − 1)/4 ESS), κ the kurtosis; for
    chains, ESS is that of the mean and of the sd. Of two modes of one height κ is 1, and what is
    left is the error of the mean squared, 1/(2 ESS²).

    Args:
        side: whose draws they are.
        x: (n,) float64 on the CPU, chain after chain.
    """
    mean, sd = x.mean(), x.std()
    kurtosis = float(((x - mean) / sd).pow(4).mean())
    n_mean = n_sd = float(len(x))
    if not side.independent:
        chains = x.reshape(side.chains, -1)
        n_mean, n_sd = float(ess(chains, "mean")), float(ess(chains, "sd"))
    return Moments(
        float(mean),
        float(sd),
        *hdi(x.numpy()),
        mean_se=float(sd) / math.sqrt(n_mean),
        log_sd_se=math.sqrt(max(0.0, kurtosis - 1) / (4 * n_sd) + 0.5 / n_mean**2),
    )


def _side_of_run(run: MCMCRun) -> Side:
    worst = [float(r.nan_to_num(-math.inf).max()) for r in run.rhat.values() if r.numel()]
    worst_rhat = max(worst, default=-math.inf)
    return Side(
        label=run.kernel,
        target=run.target,
        draws=run.draws.flatten(0, 1),
        chains=run.draws.shape[0],
        independent=False,
        seconds=run.wall_time,
        effective=run.ess_bulk,
        worst_rhat=worst_rhat if worst_rhat > 0 else math.nan,
    )
