"""Finding a learning rate: short fits at several rates, side by side, from one start."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.guides import Guide
from nfvi.targets import Target, affordable
from nfvi.training.defaults import default_gradient, default_learning_rate
from nfvi.training.ensemble import Ensemble
from nfvi.training.loop import Trainer
from nfvi.training.minibatch import reverse_kl
from nfvi.training.objectives import ReverseKL
from nfvi.training.optimizers import OptimizerSpec, make_optimizer, row_wise
from nfvi.training.schedule import LearningRate, Tempering
from nfvi.utils import check_positive, check_whole

__all__ = ["FACTORS", "RateSearch", "find_learning_rate"]

logger = logging.getLogger(__name__)

# Steps of about two. At four times the default one of two fits of `monotone*3` to pot1 ran off.
FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0)
# Ten times its own warm-up, and 3 % of the batches of a default fit; shorter, and small rates
# have not gone far enough to be told apart.
STEPS = 150
N_MC = 64
# All see the same draws, so that differences of a tenth of a nat stand out.
DRAWS = 2_048
# A smaller rate is taken where it gained almost as much: within 2 standard errors of the paired
# difference, or within the lesser of a tenth of the gain and a tenth of a nat.
ERRORS = 2.0
SHARE = 0.1
NATS = 0.1


@dataclass(frozen=True)
class RateSearch:
    """What :func:`find_learning_rate` found.

    Attributes:
        lr: the learning rate to use.
        rates: those that were tried, in rising order.
        elbos: ELBO that each reached (nats), on common draws; NaN where it was not finite.
        start: ELBO of the start on those draws.
        gradient_evaluations: draws at which the target's gradient was taken.
        batched_evaluations: batches of them, one after the other.
    """

    lr: float
    rates: tuple[float, ...]
    elbos: tuple[float, ...]
    start: float
    gradient_evaluations: int
    batched_evaluations: int


def find_learning_rate(
    guide: Guide,
    target: Target,
    *,
    generator: torch.Generator,
    around: float | None = None,
    gradient: Literal["path", "total"] | None = None,
    optimizer: OptimizerSpec = None,
    steps: int = STEPS,
    n_mc: int = N_MC,
) -> RateSearch:
    """Fit copies of a guide for a few steps, each at its own rate, and compare their ELBOs.

    The rates are 0.1, 0.25, 0.5, 1 and 2 times ``around``. All start at the guide and see the
    same draws; the rate is held after the warm-up for half of the steps and then decays, as in a
    fit, so that a rate is not blamed for the noise that the decay takes away. The best has the
    highest ELBO on 2 048 common draws. The smallest rate that is not behind it by more than twice
    the standard error of the paired difference, or by more than a tenth of what the best has
    gained and 0.1 nats, is taken: a long fit has time, and in one a rate that is too large does
    more harm. A rate whose ELBO is not finite, or lower than that of the start, loses; if all do,
    the smallest is taken.

    Args:
        guide: the start, which is left as it is. Parameters that are frozen stay so, unless all
            are.
        target: the log-density.
        generator: source of the base draws, on the device of the guide.
        around: the rate in the middle; default that of the families in the guide, or of the
            optimiser's class.
        gradient: ``"path"`` or ``"total"``; default that of the formula.
        optimizer: ``None`` for Adam, or a ``torch.optim`` class that treats each number by itself.
        steps: of each rate, at least 2.
        n_mc: draws a step, the same for each rate, at least 2.

    Raises:
        ValueError: an argument is out of its range.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    check_whole("steps", steps, 2)
    check_whole("n_mc", n_mc, 2)
    if not row_wise(optimizer):
        raise ValueError(
            'lr="auto" needs Adam or a class of torch.optim that treats restarts apart'
        )
    if around is not None:
        check_positive("around", around)
    elif optimizer is None:
        around = default_learning_rate(guide)
    trainer = _trainer(guide, target, around, gradient, optimizer, generator, steps, n_mc)
    base = trainer.peaks[0]
    rates = tuple(base * factor for factor in FACTORS)
    try:
        if trainer.run() == "interrupted":
            raise KeyboardInterrupt
    except FitError:  # no rate took a good step; the fit itself will say why
        nothing = (float("nan"),) * len(rates)
        return RateSearch(rates[0], rates, nothing, nothing[0], *_cost(trainer))
    terms = _compare(trainer, guide, generator)
    chosen, elbos = _choose(terms[:-1], terms[-1], trainer.guard.alive)
    start = float(terms[-1].mean())
    tried = ", ".join(f"{rate:g}: {elbo:.3f}" for rate, elbo in zip(rates, elbos, strict=True))
    logger.info("learning rate %g, of ELBOs after %d steps %s", rates[chosen], steps, tried)
    return RateSearch(rates[chosen], rates, elbos, start, *_cost(trainer))


def _trainer(
    guide: Guide,
    target: Target,
    lr: float | None,
    gradient: Literal["path", "total"] | None,
    optimizer: OptimizerSpec,
    generator: torch.Generator,
    steps: int,
    n_mc: int,
) -> Trainer:
    copies = [copy.deepcopy(guide) for _ in FACTORS]
    if not any(p.requires_grad for p in guide.parameters()):
        copies = [one.requires_grad_(True) for one in copies]
    ensemble = Ensemble(copies)
    gradient = default_gradient(guide) if gradient is None else gradient
    return Trainer(
        ensemble,
        reverse_kl(target, n_mc, gradient, common=True),
        make_optimizer(optimizer, ensemble.flat, lr),
        LearningRate(((steps, 1.0),), steps // 2),
        Tempering((0,) * len(FACTORS)),
        generator,
        {},
        rates=torch.tensor(FACTORS),
    )


def _cost(trainer: Trainer) -> tuple[int, int]:
    return trainer.gradient_evaluations, trainer.batched_evaluations


@torch.no_grad()
def _compare(trainer: Trainer, guide: Guide, generator: torch.Generator) -> Tensor:
    """log p − log q of each rate, and of the start last (K + 1, n), on common base draws."""
    noise = guide.base_sample(1, affordable(trainer.target, DRAWS), generator=generator)
    ended, started = trainer.ensemble, Ensemble([copy.deepcopy(guide).requires_grad_(True)])
    objective = ReverseKL(trainer.target, DRAWS, "total")
    pieces = []
    for ensemble in (ended, started):
        beta = ensemble.flat.new_ones(ensemble.size)
        pieces.append(objective(ensemble, noise.expand(ensemble.size, -1, -1), beta).elbo)
    return torch.cat(pieces).double()


def _choose(terms: Tensor, start: Tensor, alive: Tensor) -> tuple[int, tuple[float, ...]]:
    """The row to take from terms (K, n) in rising order of the rates, and their means."""
    elbo = torch.where(alive, terms.mean(1), torch.nan)
    usable = elbo.isfinite() & ~(elbo < start.mean())
    means = tuple(torch.where(elbo.isfinite(), elbo, torch.nan).tolist())
    if not bool(usable.any()):
        return 0, means
    best = int(torch.where(usable, elbo, -torch.inf).argmax())
    behind = terms[best] - terms
    gain = float(elbo[best] - start.mean())
    allowed = min(SHARE * gain, NATS) if gain == gain else NATS
    error = ERRORS * behind.std(1) / behind.shape[1] ** 0.5
    near = usable & (behind.mean(1) <= error.nan_to_num(0.0).clamp_min(allowed))
    near[best] = True
    return int(near.int().argmax()), means
