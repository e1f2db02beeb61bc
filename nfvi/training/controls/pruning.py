"""Giving up restarts that fall behind while the fit continues, so that later steps cost less."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from nfvi.targets import affordable
from nfvi.training.loop_state import Control, LoopState, Pruned
from nfvi.training.objectives import ReverseKL

__all__ = ["LOOKS", "Pruning"]

logger = logging.getLogger(__name__)

# The first is for restarts that are not tempered, the second for those that are (0.4): earlier
# looks save more and compare guides whose order may still change.
LOOKS = (0.3, 0.5, 0.65, 0.8)
# Paired differences of these have errors of a few hundredths of a nat where guides are alike.
DRAWS = 2_048
# With 8 restarts and 4 looks, chance gives up the best one in a few fits of a hundred at the
# most.
ERRORS = 3.0
# What is behind by less may catch up in the decay of the learning rate.
NATS = 0.1


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

    def __call__(self, loop: LoopState) -> None:
        """Compare the restarts if it is time, and remove those that are far behind."""
        if loop.step not in self.looks or loop.ensemble.size < 2:
            return
        beta = loop.history.last("beta", 1)[0][list(loop.rows)]
        able = (beta == 1) & loop.guard.alive
        if int(able.sum()) < 2:
            return
        terms = _terms(loop)
        behind = far_behind(terms, able)
        if bool(behind.any()):
            pruned = tuple(_note(loop, row, terms) for row in _rows(behind).tolist())
            for one in pruned:
                logger.info(
                    "restart %d is pruned at step %d: ELBO %.4f", one.index, one.step, one.elbo
                )
            loop.pruned += pruned
            loop.keep(_rows(~behind))


@torch.no_grad()
def _terms(loop: LoopState) -> Tensor:
    """log p − log q of each restart (R, n) at common base draws."""
    ensemble, draws = loop.ensemble, affordable(loop.target, DRAWS)
    noise = ensemble.template.base_sample(1, draws, generator=loop.generator)
    objective = ReverseKL(loop.target, DRAWS, "total")
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


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]


def _note(loop: LoopState, row: int, terms: Tensor) -> Pruned:
    value = terms[row]
    return Pruned(
        index=loop.rows[row],
        step=loop.step,
        elbo=float(value.mean()) if bool(value.mean().isfinite()) else float("nan"),
        elbo_se=float(value.std() / len(value) ** 0.5),
        tempered=loop.tempering.lengths[row] > 0,
        skipped=int(loop.guard.skipped[row]),
    )
