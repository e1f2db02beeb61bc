"""Mass that no start has found: searched for, and taken into a mixture until nothing new comes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from nfvi.auto.failure import carries_best
from nfvi.auto.gaussians import MOST_FLOWS, keep_guide, weights_of
from nfvi.auto.record import Record
from nfvi.guides import AnyGuide, Guide, MixtureGuide, parts
from nfvi.search import MOST_PLACES, MissedMass, Place
from nfvi.starts import fit_gaussians, gaussian_guide

__all__ = ["cover_missed_mass"]

logger = logging.getLogger(__name__)

ROUNDS = 8
"""Of a search and a mixture; a grid of 25 modes takes 2, forty modes in d = 10 take 4."""
STEPS = 20
"""Of the Gaussian fit at each place, which begins with the curvature there."""
LEAST_OF_MODES = 0.003
"""Of the mass: what modes have together that join although it is little. A tenth of what is told;
forty modes of a fortieth each need it."""


@carries_best
def cover_missed_mass(record: Record, generator: torch.Generator, dtype: torch.dtype) -> None:
    """Search for mass that the best rung misses, and keep mixtures with what is found.

    Each place that a search finds gets a Gaussian, and all guides together their weights. It ends
    when a search is clean, when no Gaussian that was found is needed, when the places are too
    many for a mixture, or with the budget. The last search is in the record.

    Modes are taken where a search is clean, too. It may be so because the weights of the rung show
    that mass: a few draws of a wide Gaussian that fall on a mode say that it is there, and hardly
    more. It ends there if the mixture is no better for them, as along a ridge of waves.

    Args:
        record: of the climb, with one rung at least.
        generator: of all draws.
        dtype: of the guides.
    """
    for _ in range(ROUNDS):
        found = record.search(generator)
        best = record.best()
        guide = record.tried[best].guide
        places = _worth_a_gaussian(found)
        hopeless = found.improper or len(found.places) >= MOST_PLACES
        if not places or hopeless or record.out_of_time():
            return
        mixed = _with_places(record, guide, places, generator, dtype)
        if mixed is None:
            logger.info("no Gaussian at %d places is needed", len(places))
            return
        logger.info("Gaussians at %d places that a search found join the guide", len(places))
        keep_guide(record, mixed)
        if found.clean and record.best() == best:
            logger.info("it is no better for them")
            return


def _worth_a_gaussian(found: MissedMass) -> Sequence[Place]:
    """The places that are to join a guide: all, or the modes where the search is clean."""
    if not found.clean:
        return found.places
    modes = [place for place in found.places if place.mode]
    return modes if sum(place.share for place in modes) > LEAST_OF_MODES else ()


def _with_places(
    record: Record,
    guide: AnyGuide,
    places: Sequence[Place],
    generator: torch.Generator,
    dtype: torch.dtype,
) -> AnyGuide | None:
    """A mixture of the guide and a Gaussian at each place; ``None`` if no Gaussian is needed.

    A mixture of many components keeps their shares among each other: to fit all weights again, and
    to try each of them for whether it is needed, would take longer than all else.
    """
    whole = len(parts(guide)) > MOST_FLOWS
    old = (guide,) if whole else parts(guide)
    new = _gaussians_at(record, places, generator, dtype)
    pool = [*old, *new]
    weights = weights_of(record, pool, generator)
    needed = (weights > 0).nonzero()[:, 0].tolist()
    if not new or max(needed) < len(old):
        return None
    shares = [(part, weights[i] * share) for i in needed for part, share in _shares(pool[i])]
    guides, each = zip(*shares, strict=True)
    return MixtureGuide(guides, torch.stack(each)) if len(guides) > 1 else guides[0]


def _shares(guide: AnyGuide) -> list[tuple[Guide, Tensor]]:
    """The components of a guide with their weights."""
    if isinstance(guide, MixtureGuide):
        return list(zip(guide.guides, guide.weights, strict=True))
    return [(guide, torch.ones((), dtype=torch.float64, device=guide.device))]


def _gaussians_at(
    record: Record, places: Sequence[Place], generator: torch.Generator, dtype: torch.dtype
) -> list[Guide]:
    """A Gaussian at each place, fitted by a few steps from the curvature there."""
    loc = torch.stack([place.z for place in places])
    tril = torch.stack([place.tril for place in places if place.tril is not None])
    fitted = fit_gaussians(
        record.target, loc, tril, generator, steps=STEPS, dtype=dtype, enough=record.enough
    )
    record.count(fitted.iterations, fitted.gradient_evaluations)
    usable = fitted.loc.isfinite().all(-1) & fitted.tril.isfinite().all((-1, -2))
    return [
        gaussian_guide(m, factor, dtype)
        for m, factor, good in zip(fitted.loc, fitted.tril, usable.tolist(), strict=True)
        if good
    ]
