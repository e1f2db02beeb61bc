"""Giving up restarts that fall behind while the fit goes on, so that later steps cost less."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.training.control import Control
from nfvi.training.objectives import ReverseKL

if TYPE_CHECKING:
    from nfvi.training.loop import Trainer

__all__ = ["LOOKS", "Pruned", "Pruning", "keep_restarts"]

LOOKS = (0.3, 0.5, 0.65, 0.8)
DRAWS = 2_048
ERRORS = 3.0
NATS = 0.1


@dataclass(frozen=True)
class Pruned:
    """What is known of a restart that was given up.

    Attributes:
        index: its column in the history.
        step: after which it was given up.
        elbo: its ELBO then (nats), or NaN.
        elbo_se: the standard error of that.
        tempered: whether it was tempered.
        skipped: steps left out because loss or gradient were not finite.
    """

    index: int
    step: int
    elbo: float
    elbo_se: float
    tempered: bool
    skipped: int

    def as_dict(self) -> dict[str, Any]:
        """Name -> value, for a JSON header."""
        return asdict(self)


class Pruning(Control):
    """Successive halving: at fixed steps the lower half of the restarts goes, if it is far behind.

    At 0.3, 0.5, 0.65 and 0.8 of the steps, restarts that are not tempered (β = 1 by then) get an
    ELBO from 2 048 common base draws. Of those in the lower half, each that is behind the best by
    more than 3 standard errors of the paired difference and by more than 0.1 nats is removed, and
    so is one whose ELBO is not finite. Restarts with β < 1 are left alone.

    Args:
        steps: of the fit.

    Reference:
        Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter
        optimization, 2016.
    """

    def __init__(self, steps: int) -> None:
        self.looks = {round(fraction * steps) for fraction in LOOKS}

    def __call__(self, trainer: Trainer) -> None:
        """Compare the restarts if it is time, and remove those that are far behind."""
        if trainer.step not in self.looks or trainer.ensemble.size < 2:
            return
        beta = trainer.history.last("beta", 1)[0][list(trainer.rows)]
        able = (beta == 1) & trainer.guard.alive
        if int(able.sum()) < 2:
            return
        terms = _terms(trainer)
        behind = far_behind(terms, able)
        if bool(behind.any()):
            keep_restarts(trainer, ~behind, terms)


@torch.no_grad()
def _terms(trainer: Trainer) -> Tensor:
    """log p − log q of each restart (R, n) at common base draws."""
    ensemble = trainer.ensemble
    noise = ensemble.template.base_sample(1, DRAWS, generator=trainer.generator)
    objective = ReverseKL(trainer.target, DRAWS, "total")
    beta = ensemble.flat.new_ones(ensemble.size)
    elbo: Tensor = objective(ensemble, noise.expand(ensemble.size, -1, -1), beta).elbo
    return elbo.to(torch.float64)


def far_behind(terms: Tensor, able: Tensor) -> Tensor:
    """Which rows of terms (R, n) are to be removed (R), of those that may be compared (R)."""
    elbo = terms.mean(1)
    usable = able & elbo.isfinite()
    if not bool(usable.any()):
        return torch.zeros_like(able)
    elbo = torch.where(usable, elbo, -torch.inf)
    order = elbo.argsort(descending=True, stable=True)
    upper = torch.zeros_like(able)
    upper[order[: (int(able.sum()) + 1) // 2]] = True
    difference = terms[order[0]] - terms
    error = difference.std(1) / difference.shape[1] ** 0.5
    far = difference.mean(1) > (ERRORS * error).clamp_min(NATS)
    behind: Tensor = able & ~upper & (far | ~usable)
    return behind


@torch.no_grad()
def keep_restarts(trainer: Trainer, kept: Tensor, terms: Tensor | None = None) -> None:
    """Remove all restarts but those of a mask (R): parameters, optimiser state and the rest.

    Args:
        trainer: it is changed; its history keeps the columns, with NaN from here on.
        kept: the mask.
        terms: log p − log q of every restart (R, n), from which those removed are noted.
    """
    if terms is not None:
        trainer.pruned += tuple(_note(trainer, r, terms) for r in (~kept).nonzero()[:, 0].tolist())
    rows = kept.nonzero()[:, 0]
    old = trainer.ensemble.flat
    trainer.ensemble.keep(rows)
    _move(trainer.optimizer, old, trainer.ensemble.flat, rows)
    trainer.guard.keep(rows)
    trainer.tempering = trainer.tempering.keep(rows)
    trainer.gradient, trainer.last_good = trainer.gradient[rows], trainer.last_good[rows]
    if trainer.group_gradients is not None:
        trainer.group_gradients = trainer.group_gradients[:, rows]
    if trainer.rates is not None:
        trainer.rates = trainer.rates[rows]
    for control in trainer.controls:
        control.keep(rows)
    trainer.rows = tuple(trainer.rows[r] for r in rows.tolist())


def _note(trainer: Trainer, row: int, terms: Tensor) -> Pruned:
    value = terms[row]
    return Pruned(
        index=trainer.rows[row],
        step=trainer.step,
        elbo=float(value.mean()) if bool(value.mean().isfinite()) else float("nan"),
        elbo_se=float(value.std() / len(value) ** 0.5),
        tempered=trainer.tempering.lengths[row] > 0,
        skipped=int(trainer.guard.skipped[row]),
    )


def _move(optimizer: torch.optim.Optimizer, old: Tensor, new: Tensor, rows: Tensor) -> None:
    """Hand what an optimiser knows of one leaf tensor (R, P) to the leaf of some of its rows."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if state is not None:
        optimizer.state[new] = {
            name: value[rows] if isinstance(value, Tensor) and value.shape == old.shape else value
            for name, value in state.items()
        }
