"""A guide that a climb has tried, what is said of it, and the score by which it is compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from nfvi.fit import KHAT_LIMIT, Diagnostics, Restart, WeightedDraws
from nfvi.guides import AnyGuide, header_of_guide, parts
from nfvi.search import MissedMass
from nfvi.training import History, Trainer

__all__ = ["Tried", "described", "score_of"]

NEGLIGIBLE = 20.0
"""Nats."""


@dataclass(frozen=True)
class Tried:
    """A guide that was tried, and everything that a :class:`~nfvi.Fit` keeps of it."""

    guide: AnyGuide
    diagnostics: Diagnostics
    history: History
    restarts: tuple[Restart, ...]
    settings: dict[str, Any]
    trainer: Trainer | None
    missed: MissedMass | None = None


def described(guide: AnyGuide) -> dict[str, Any]:
    """What the settings of a fit, and its checkpoints, say of a guide."""
    return {
        "formula": str(guide.formula),
        "base": str(guide.base),
        "placement": header_of_guide(parts(guide)[0])["placement"],
    }


def score_of(draws: WeightedDraws, found: Diagnostics) -> float:
    """The ELBO by which rungs are compared; −∞ where it is not finite.

    Where k-hat is below 0.7, log p − log q of a draw counts as 20 nats below the log evidence at
    least: a draw of less weight changes no weighted answer, and a few of them, which a spline sends
    far away, would rule the mean.
    """
    if found.khat < KHAT_LIMIT and math.isfinite(found.log_evidence):
        ratio = draws.log_p.double() - draws.log_q.double()
        ratio = ratio[ratio.isfinite() | (draws.log_p == -torch.inf)]
        return float(ratio.clamp_min(found.log_evidence - NEGLIGIBLE).mean())
    return found.elbo if math.isfinite(found.elbo) else -math.inf
