"""A fit that ends by itself: when to let the learning rate decay, and how long to go on at most."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nfvi.training.callbacks import gain_between
from nfvi.training.loop_state import Control, LoopState
from nfvi.training.schedule import LearningRate
from nfvi.utils import next_multiple

__all__ = ["CAP", "Plateau", "open_ended", "predicted_gain"]

# Four default fits; a target that still gains by then wants another formula.
CAP = 20_000
# Six warm-ups: the gain of two quarters of fewer steps is that of the warm-up.
FLOOR = 300
# At the floor a sixth of the steps: a look costs nothing, and looking more often only ends on
# luck.
EVERY = 50
# In nats, for as many steps again: a KL of 0.01 is seen in no plot (docs/diagnostics.md).
TOLERANCE = 0.01


def open_ended(cap: int = CAP) -> LearningRate:
    """The schedule of a fit that ends by itself: two thirds of the cap held, then the decay."""
    return LearningRate(((cap, 1.0),), 2 * cap // 3)


class Plateau(Control):
    """Begins the decay of the learning rate when more steps at the full rate are not worth it.

    After t steps, let g be the gain in mean ELBO from the third to the fourth quarter of the t
    steps (or of those since tempering ended, if they are fewer than t / 2) and se its standard
    error, see :func:`~nfvi.training.callbacks.convergence.gain_between`; the middles of the two
    windows lie at c₁ and c₂ steps. An ELBO that rises like log t, which is slower to level off
    than any that rises to its limit by a power of t, would gain by as many steps again ::

        (g + se) · log 2 / log(c₂ / c₁)

    nats. Once that is below the tolerance for the best restart, the rate falls to 0 by a cosine
    over half as many steps as there were, and the fit ends. Restarts with β < 1 are waited for.

    The idea to weigh what is still to be gained against the steps it takes is that of RABVI, which
    predicts it for a rate that is divided again and again.

    Args:
        tolerance: nats, over 0.
        floor: steps before which the decay does not begin.

    Reference:
        Welandawe, Andersen, Vehtari and Huggins, Robust, automated, and accurate black-box
        variational inference, 2022.
    """

    def __init__(self, tolerance: float = TOLERANCE, floor: int = FLOOR) -> None:
        self.tolerance, self.floor = tolerance, floor

    def next_look(self, step: int) -> int:
        return next_multiple(step, EVERY)

    def __call__(self, loop: LoopState) -> None:
        step, schedule = loop.step, loop.schedule
        if step % EVERY or step < self.floor or step >= schedule.hold:
            return
        if predicted_gain(loop) < self.tolerance:
            to_the_end = loop.last >= schedule.steps
            loop.schedule = LearningRate(((step + step // 2, 1.0),), step)
            loop.ending = "converged"
            if to_the_end:
                loop.last = loop.schedule.steps


def predicted_gain(loop: LoopState) -> float:
    """What the best restart may gain by as many steps again (nats); ∞ where it is not known."""
    history, alive = loop.history, loop.whole(loop.guard.alive, False)
    step = len(history)
    span = step // 2
    beta = history.last("beta", span)[:, alive]
    tempered = (beta < 1).any(1).nonzero()
    span -= int(tempered[-1]) + 1 if len(tempered) else 0
    if span < FLOOR // 2:
        return math.inf
    elbo = history.last("elbo", span)
    best = _best(elbo[span // 2 :], alive)
    found = gain_between(
        elbo[:, best : best + 1], history.last("elbo_se", span)[:, best : best + 1]
    )
    far = math.log((step - span / 4) / (step - 3 * span / 4))
    return float(found.gain + found.error) * math.log(2) / far


def _best(elbo: Tensor, alive: Tensor) -> int:
    mean = elbo.nanmean(0)
    return int(torch.where(alive & mean.isfinite(), mean, -torch.inf).argmax())
