"""Ranking the restarts of a fit by their final ELBO."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nfvi.diagnostics import elbo_of, evaluate
from nfvi.training.loop import Trainer

__all__ = ["Restart", "rank"]

DRAWS = 20_000


@dataclass(frozen=True)
class Restart:
    """One restart of a fit.

    Attributes:
        index: its row in the history.
        elbo: ELBO at the end (nats); NaN if it was dropped.
        elbo_se: its Monte-Carlo standard error.
        tempered: whether β rose from near 0 at first.
        skipped: steps left out because loss or gradient were not finite.
        dropped: whether it was given up after too many of them in a row.
        best: whether it is the one that was kept.
    """

    index: int
    elbo: float
    elbo_se: float
    tempered: bool
    skipped: int
    dropped: bool
    best: bool


def rank(trainer: Trainer, seed: int) -> tuple[Restart, ...]:
    """Evaluate every restart with the same 20 000 base draws and mark the best one."""
    ensemble, guard = trainer.ensemble, trainer.guard
    scores: list[tuple[float, float]] = []
    for index in range(ensemble.size):
        if not bool(guard.alive[index]):
            scores.append((float("nan"), float("nan")))
            continue
        generator = torch.Generator(ensemble.flat.device).manual_seed(seed)
        _, log_p, log_q = evaluate(ensemble.guide(index), trainer.target, DRAWS, generator)
        scores.append(elbo_of(log_p, log_q))
    # NaN never compares greater, so a restart without a finite ELBO is only kept if all are so.
    best = max(range(len(scores)), key=lambda i: (scores[i][0] == scores[i][0], scores[i][0]))
    return tuple(
        Restart(
            index=index,
            elbo=elbo,
            elbo_se=elbo_se,
            tempered=trainer.tempering.lengths[index] > 0,
            skipped=int(guard.skipped[index]),
            dropped=not bool(guard.alive[index]),
            best=index == best,
        )
        for index, (elbo, elbo_se) in enumerate(scores)
    )
