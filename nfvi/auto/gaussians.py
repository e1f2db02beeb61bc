"""The first rungs of a climb: Gaussians, and a mixture of them where there are several modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nfvi.auto.failure import carries_best
from nfvi.auto.record import Record
from nfvi.auto.rungs import Learned, plan_of
from nfvi.errors import FitError
from nfvi.fit import draws_of_each, mixture_weights
from nfvi.guides import AnyGuide, MixtureGuide, Placement, parts
from nfvi.starts import (
    FULL_RANK_LIMIT,
    Modes,
    Start,
    explore,
    find_start,
    gaussian_guide,
    gaussian_of,
    grouped,
)
from nfvi.targets import Target
from nfvi.training import catch_interrupt, default_n_mc

__all__ = [
    "MOST_FLOWS",
    "gaussian_rungs",
    "keep_guide",
    "mode_rungs",
    "nothing_finite",
    "places_of",
    "weights_of",
]

# Draws of each Gaussian for its weight, under a budget.
FEWEST = 100
MOST_FLOWS = 32
"""Forty modes at random in a plane are some 24 groups; a shell in ten dimensions 72 Gaussians."""
# By which a handful of Gaussians are compared.
COMPARED, FEWEST_COMPARED = 1_000, 50
FIRST_BATCH = 2_048
"""Points of the first batch of gradients that looks for modes: 16 starts of 128 draws."""


@carries_best
def gaussian_rungs(record: Record, generator: torch.Generator, dtype: torch.dtype) -> Start:
    """Keep the diagonal and, up to 300 dimensions, the full-rank Gaussian.

    Args:
        record: of the climb.
        generator: of the draws.
        dtype: of the guides.

    Returns:
        The best Gaussian.

    Raises:
        FitError: none has a finite ELBO.
        KeyboardInterrupt: Ctrl-C was pressed; the Gaussians so far are kept first.
    """
    record.stage("Gaussians")
    try:
        with catch_interrupt() as pressed:
            start = find_start(
                record.target,
                "auto",
                generator,
                dtype,
                lambda gradients: pressed.requested or record.enough(gradients),
                record.affordable(COMPARED, FEWEST_COMPARED),
            )
    except FitError as error:
        raise FitError(nothing_finite(record.target)) from error
    record.count(start.iterations, start.gradient_evaluations)
    if start.diagonal is not None:
        keep_guide(record, gaussian_guide(*start.diagonal, dtype))
    if start.tril.dim() == 2:
        keep_guide(record, gaussian_guide(start.loc, start.tril, dtype))
    if pressed.requested:
        raise KeyboardInterrupt
    return start


@carries_best
def mode_rungs(
    record: Record, start: Start, generator: torch.Generator, dtype: torch.dtype
) -> list[Placement]:
    """Keep a mixture of Gaussians if it takes several, or a better one; up to 300 dimensions.

    Args:
        record: of the climb.
        start: what :func:`gaussian_rungs` found.
        generator: of the draws.
        dtype: of the guides.

    Returns:
        Where flows are to start: on each group of modes that overlap, if there are several; or on
        a better one than the start's.
    """
    here = [start.placement(1.0)]
    if record.target.dim > FULL_RANK_LIMIT or not record.affords(FIRST_BATCH):
        return here
    record.stage("search for modes")
    modes = explore(record.target, _full(start), generator, dtype, record.enough)
    record.count(modes.iterations, modes.gradient_evaluations)
    weights = _weights(record, modes, generator, dtype)
    needed = (weights > 0).nonzero()[:, 0]
    modes = modes.choose(needed)
    guides = [gaussian_guide(*pair, dtype) for pair in zip(modes.loc, modes.tril, strict=True)]
    if len(guides) > 1:
        keep_guide(record, MixtureGuide(guides, weights[needed]))
        return _places(modes.loc, modes.tril, weights[needed]) or here
    if not modes.away_from(start.loc, _full(start).tril):
        return here
    keep_guide(record, guides[0])
    return [Placement(modes.loc[0], modes.tril[0])]


def places_of(mixture: AnyGuide) -> list[Placement]:
    """Where flows are to start for a mixture of Gaussians; none if all of them overlap."""
    gaussians = [gaussian_of(part) for part in parts(mixture)]
    loc, tril = (torch.stack(values) for values in zip(*gaussians, strict=True))
    weights = mixture.weights if isinstance(mixture, MixtureGuide) else loc.new_ones(1)
    return _places(loc, tril, weights)


def _places(loc: Tensor, tril: Tensor, weights: Tensor) -> list[Placement]:
    """Those that overlap are one place, since flows that cover the same mass undo one another.

    Of more places than flows can be fitted to side by side there are none: they are those of a
    shell more likely than modes.
    """
    loc, tril = grouped(loc, tril, weights)
    few = 1 < len(loc) <= MOST_FLOWS
    return [Placement(*pair) for pair in zip(loc, tril, strict=True)] if few else []


def nothing_finite(target: Target) -> str:
    """What to say of a target on which no guide has a finite ELBO."""
    return (
        f'NFVI("auto") found no guide with a finite ELBO for {target.name!r}: its log-density is'
        " −inf or NaN at draws of every Gaussian that was tried. It must be finite on all of R^d:"
        " transform coordinates that are bounded, and see where it is NaN"
    )


def _full(start: Start) -> Start:
    """The same with a matrix for its diagonal, where correlations were not worth having."""
    return start if start.tril.dim() == 2 else replace(start, tril=start.tril.diag_embed())


def _weights(
    record: Record, modes: Modes, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Of a mixture of these Gaussians; 0 for those that it does not take."""
    guides = [gaussian_guide(*pair, dtype) for pair in zip(modes.loc, modes.tril, strict=True)]
    if len(guides) == 1:
        return torch.ones(1, dtype=dtype, device=modes.loc.device)
    return weights_of(record, guides, generator)


def weights_of(record: Record, guides: Sequence[AnyGuide], generator: torch.Generator) -> Tensor:
    """The weights of a mixture of guides, by as many draws as their number and the budget allow."""
    n = record.affordable(draws_of_each(len(guides)), FEWEST)
    return mixture_weights(guides, record.target, n, generator, record.out_of_time)


def keep_guide(record: Record, guide: AnyGuide, steps: int = 0) -> None:
    """Keep a guide that no fit by the ELBO has made as a rung, after so many steps."""
    count, dim = len(parts(guide)), guide.dim
    # What a run that continues from it would take.
    further = Learned(str(guide.formula), 1, default_n_mc(dim), 0.02)
    record.add_guide(guide, plan_of(further, count, dim, record.seed), steps)
