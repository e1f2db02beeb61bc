"""Ranking the restarts of a fit by their final ELBO, and whether that still rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nfvi.fit.diagnostics import elbo_of
from nfvi.fit.evaluation import evaluate
from nfvi.targets import affordable
from nfvi.training import REPLICATES, History, Pruned, Trainer, qmc_elbo

__all__ = ["Restart", "kept", "rank", "still_rises"]

# 4 000 could not tell an uneven split of two modes from an even one.
DRAWS = 20_000
# In nats: what no plot shows is not worth more steps.
LEAST_GAIN = 0.01


@dataclass(frozen=True)
class Restart:
    """One restart of a fit.

    Attributes:
        index: its row in the history.
        elbo: ELBO at the end (nats); NaN if it was dropped.
        elbo_se: its Monte-Carlo standard error, over shifts with ``draws="qmc"``.
        tempered: whether β rose from near 0 at first.
        skipped: steps left out because loss or gradient were not finite.
        dropped: whether it was given up after too many of them in a row.
        best: whether it is the one that was kept, or the best one of a mixture.
        pruned: the step after which it was given up for being behind, where ``elbo`` is from;
            ``None`` if it was not.
        weight: its share of the mixture that was kept; ``None`` if it is not in one.
    """

    index: int
    elbo: float
    elbo_se: float
    tempered: bool
    skipped: int
    dropped: bool
    best: bool
    pruned: int | None = None
    weight: float | None = None


def kept(restarts: Sequence[Restart]) -> list[int]:
    """The indices of the restarts that a guide is made of: those of a mixture, or the best one."""
    mixed = [restart.index for restart in restarts if restart.weight is not None]
    return mixed or [restart.index for restart in restarts if restart.best]


def still_rises(history: History, restarts: Sequence[Restart], *, rows: bool = False) -> bool:
    """Whether the best ELBO rose from the last fifth but one to the last, and not by chance.

    Args:
        history: of the fit.
        restarts: of the fit.
        rows: whether a step sees a few rows of data.
    """
    steps = len(history)
    if not steps:
        return False
    best = next(restart.index for restart in restarts if restart.best)
    length = max(steps // 5, 1)
    elbo, se = history.elbo[:, best].double(), history.elbo_se[:, best].double()
    gain = float(elbo[-length:].mean() - elbo[-2 * length : -length].mean())
    error = float(se[-2 * length :].square().sum().sqrt()) / length
    if rows:
        # All draws of a step see the same rows, and their spread says nothing of that noise.
        error = max(error, float(elbo[-2 * length :].std()) * (2 / length) ** 0.5)
    # A gain that is NaN, as after a single step, says nothing against more steps.
    return not gain <= max(LEAST_GAIN, 3 * error)


def rank(trainer: Trainer, seed: int, draws: int | None = None) -> tuple[Restart, ...]:
    """Evaluate every restart with the same base draws, 20 000 by default, and mark the best one.

    They are even ones in a fit that was run with ``draws="qmc"``, see
    :func:`~nfvi.training.noise.qmc_elbo`.
    """
    draws = affordable(trainer.target, DRAWS, 0.25) if draws is None else draws
    scores = [_score(trainer, row, seed, draws) for row in range(trainer.ensemble.size)]
    # NaN never compares greater, so a restart without a finite ELBO is only kept if all are so.
    best = max(range(len(scores)), key=lambda i: (scores[i][0] == scores[i][0], scores[i][0]))
    guard = trainer.guard
    ended = [
        Restart(
            index=trainer.rows[row],
            elbo=elbo,
            elbo_se=elbo_se,
            tempered=trainer.tempering.lengths[row] > 0,
            skipped=int(guard.skipped[row]),
            dropped=not bool(guard.alive[row]),
            best=row == best,
        )
        for row, (elbo, elbo_se) in enumerate(scores)
    ]
    return tuple(sorted([*ended, *map(_given_up, trainer.pruned)], key=lambda r: r.index))


def _score(trainer: Trainer, row: int, seed: int, draws: int) -> tuple[float, float]:
    if not bool(trainer.guard.alive[row]):
        return float("nan"), float("nan")
    guide = trainer.ensemble.guide(row)
    if trainer.settings.get("draws") == "qmc":
        return qmc_elbo(guide, trainer.target, max(draws // REPLICATES, 2), REPLICATES, seed)
    generator = torch.Generator(trainer.ensemble.flat.device).manual_seed(seed)
    found = evaluate(guide, trainer.target, draws, generator, keep=0, ranks=trainer.ranks)
    return elbo_of(found.log_p, found.log_q)


def _given_up(pruned: Pruned) -> Restart:
    return Restart(
        index=pruned.index,
        elbo=pruned.elbo,
        elbo_se=pruned.elbo_se,
        tempered=pruned.tempered,
        skipped=pruned.skipped,
        dropped=False,
        best=False,
        pruned=pruned.step,
    )
