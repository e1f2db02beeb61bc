"""What a finished run gives: its best restart, or a mixture of those in different modes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from nfvi.errors import FitError
from nfvi.fit.mixture_weights import draws_of_each, mixture_weights
from nfvi.fit.restarts import Restart, kept, rank
from nfvi.guides import AnyGuide, MixtureGuide, gaussian_parts
from nfvi.starts import gaussian_of, grouped
from nfvi.targets import affordable
from nfvi.training import Trainer

__all__ = ["check_apart", "outcome"]

logger = logging.getLogger(__name__)

# Such a restart is a mode with less than 10⁻⁴ of the mass, or a bad fit of a larger one.
NATS = 10.0


def outcome(
    trainer: Trainer, draws: int | None = None, enough: Callable[[], bool] = lambda: False
) -> tuple[AnyGuide, tuple[Restart, ...]]:
    """The guide of a run, and every restart with its ELBO and its share in the guide.

    With ``combine="mixture"`` among the settings, the restarts with a finite ELBO within 10 nats of
    the best get the weights of :func:`~nfvi.fit.mixture_weights.mixture_weights`, from 2 000 draws
    of each, or fewer of more than 20. If one of them is all that is needed, the guide is that one
    and no mixture.

    Args:
        trainer: after its run.
        draws: by which restarts are ranked, 20 000 by default; a tenth of them at most weighs each.
        enough: whether time is up, so that weights are found with less care.
    """
    restarts = rank(trainer, trainer.settings["seed"], draws)
    if trainer.settings.get("combine") == "mixture":
        each = draws_of_each(len(restarts))
        each = affordable(trainer.target, each, 0.1) if draws is None else min(each, draws // 10)
        restarts = _weighed(trainer, restarts, each, enough)
    for one in restarts:
        logger.debug("restart %d: ELBO %.4f ± %.4f", one.index, one.elbo, one.elbo_se)
    logger.info("%d restarts, kept %s", len(restarts), ", ".join(map(str, kept(restarts))))
    guides = [trainer.guide(index) for index in kept(restarts)]
    weights = [r.weight for r in restarts if r.weight is not None]
    return (MixtureGuide(guides, weights) if weights else guides[0]), restarts


def _weighed(
    trainer: Trainer, restarts: Sequence[Restart], draws: int, enough: Callable[[], bool]
) -> tuple[Restart, ...]:
    """The restarts with their weights, or with another best one where that is all it takes."""
    best = next(r for r in restarts if r.best)
    able = [
        r
        for r in restarts
        if r.pruned is None and math.isfinite(r.elbo) and r.elbo >= best.elbo - NATS
    ]
    if len(able) < 2:
        return tuple(restarts)
    # Another stream than those of the ranking and of the diagnostics.
    generator = torch.Generator(trainer.ensemble.flat.device)
    generator.manual_seed(trainer.settings["seed"] + 2)
    guides = [trainer.guide(r.index) for r in able]
    weights = mixture_weights(guides, trainer.target, draws, generator, enough).tolist()
    shares = {r.index: w for r, w in zip(able, weights, strict=True) if w > 0}
    top = max((r for r in able if r.index in shares), key=lambda r: r.elbo).index
    mixed = shares if len(shares) > 1 else {}
    return tuple(replace(r, best=r.index == top, weight=mixed.get(r.index)) for r in restarts)


def check_apart(guide: AnyGuide) -> None:
    """Check that the components of a guide can go on side by side, each by its own ELBO.

    Raises:
        FitError: it is a mixture of Gaussians, some of which overlap: alone, each would move to
            where all of them are.
    """
    if not isinstance(guide, MixtureGuide) or gaussian_parts(guide.guides) is None:
        return
    pairs = [gaussian_of(part) for part in guide.guides]
    loc, tril = (torch.stack(values) for values in zip(*pairs, strict=True))
    if len(grouped(loc, tril, guide.weights)[0]) < len(pairs):
        raise FitError(
            f"refine fits each component of a mixture by its own ELBO, and of these {len(pairs)}"
            " Gaussians some follow one shape together, which they would leave: fit a flow instead,"
            " as in NFVI('monotone*3').fit(target, init='auto')"
        )
