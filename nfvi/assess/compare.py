"""A fit against MCMC, or any two sides: a table per scalar, and distances between the draws."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from nfvi.assess.compare_html import comparison_html, comparison_report
from nfvi.assess.compare_numbers import Distances, Row, distances_between, rows_of
from nfvi.assess.compare_sides import Side, exact_side, side_of
from nfvi.assess.compare_text import ComparisonFacts, SideFacts, comparison_text
from nfvi.mcmc import MCMCRun
from nfvi.utils import Posterior, check_whole, write_report

__all__ = ["Comparison", "compare"]

# As many as four chains of 1 000, so that a sampler by default gives as many as a fit is asked
# for.
DEFAULT_DRAWS = 4000
# Below, an sd and its error say nothing.
LEAST_DRAWS = 8


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Two sides and what sets them apart; ``print`` shows it as a table.

    Attributes:
        left: what was compared, a :class:`nfvi.assess.compare_sides.Side`.
        right: with what; the reference of ``table``.
        exact: exact draws, where the target has a sampler.
        table: a row for every scalar that is not constant, left against right.
        against_exact: the same with left, then right, against exact draws.
        distances: between the sets of draws.
        seed: repeats the comparison.
    """

    left: Side
    right: Side
    exact: Side | None
    table: tuple[Row, ...]
    against_exact: tuple[tuple[Row, ...], tuple[Row, ...]] | None
    distances: Distances
    seed: int

    def _facts(self) -> ComparisonFacts:
        return ComparisonFacts(
            target=self.left.target.name,
            left=_facts(self.left),
            right=_facts(self.right),
            table=self.table,
            against_exact=self.against_exact,
            distances=self.distances,
        )

    def __str__(self) -> str:
        return comparison_text(self._facts())

    def _repr_html_(self) -> str:
        return comparison_html(self._facts())

    def __repr__(self) -> str:
        return f"Comparison({self.left.label!r}, {self.right.label!r}, {self.left.target.name!r})"

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison to one HTML file, which loads nothing from elsewhere.

        Args:
            path: the file; its folder must exist.

        Raises:
            ImportError: the extra ``nfvi[plots]`` is missing.
            OSError: the file cannot be written.
        """
        write_report(path, lambda: comparison_report(self._facts(), self.plot))

    def plot(self) -> Any:
        """The picture side by side; see :func:`nfvi.plots.comparison`."""
        from nfvi.plots import comparison

        return comparison(self)


def compare(
    fit: Posterior, run: Posterior, *, draws: int | None = None, seed: int | None = None
) -> Comparison:
    """Compare a fit with an MCMC run, or two of either.

    Args:
        fit: the left side: a ``Fit``, an ``MCMCRun``, or another :class:`Posterior`.
        run: the right side, which is the reference: differences are in its posterior sds.
        draws: fresh draws of each fit, at least 8; default 4000, or as many as a run has if that
            is more. A run always gives all of its draws.
        seed: of the fresh draws, the exact draws and the directions; default a fresh one.

    Returns:
        The comparison; on unconstrained space the distances are
        SW₂ = (mean over directions θ of the mean squared gap between sorted θᵀx / sd)^½.

    Raises:
        ValueError: the sides differ in dimension or sites, or a side has no target, or draws is out
            of range.
        TypeError: a side is nothing that can be compared.
    """
    n = _number_of_draws(fit, run, draws)
    if seed is not None:
        check_whole("seed", seed, 0, 2**63 - 1)
    seed = torch.Generator(device="cpu").seed() >> 1 if seed is None else seed
    generator = torch.Generator(device="cpu").manual_seed(seed)
    seeds = torch.randint(2**62, (4,), generator=generator, device="cpu").tolist()
    left, right = side_of(fit, n, seeds[0]), side_of(run, n, seeds[1])
    _check_alike(left, right)
    left, right = _told_apart(left, right)
    sizes = len(left.draws), len(right.draws)
    target = left.target if left.target.has_sampler else right.target
    exact = twin = None
    if target.has_sampler:
        exact, twin = (exact_side(target, max(sizes), s, left.draws) for s in seeds[2:])
    return Comparison(
        left=left,
        right=right,
        exact=exact,
        table=rows_of(left, right),
        against_exact=(rows_of(left, exact), rows_of(right, exact)) if exact else None,
        distances=distances_between(left, right, exact, twin, min(sizes), generator),
        seed=seed,
    )


def _number_of_draws(fit: Any, run: Any, draws: int | None) -> int:
    if draws is not None:
        check_whole("draws", draws, LEAST_DRAWS)
        return draws
    totals = [side.diverging.numel() for side in (run, fit) if isinstance(side, MCMCRun)]
    return max([DEFAULT_DRAWS, *totals])


def _check_alike(left: Side, right: Side) -> None:
    """Both sides are about the same unknowns."""
    if left.target.dim != right.target.dim:
        raise ValueError(
            f"{left.label} on {left.target.name!r} has {left.target.dim} dimensions and "
            f"{right.label} on {right.target.name!r} {right.target.dim}; compare needs one target"
        )
    shapes = [{k: tuple(x.shape[1:]) for k, x in side.sites.items()} for side in (left, right)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the sides differ in their sites: {shapes[0]} and {shapes[1]}")
    for side in (left, right):
        if len(side.draws) < LEAST_DRAWS:
            raise ValueError(f"{side.label} has {len(side.draws)} draws; {LEAST_DRAWS} are needed")


def _told_apart(left: Side, right: Side) -> tuple[Side, Side]:
    """Two labels that are the same are numbered."""
    if left.label != right.label:
        return left, right
    return left.relabelled(f"{left.label} (1)"), right.relabelled(f"{right.label} (2)")


def _facts(side: Side) -> SideFacts:
    return SideFacts(
        label=side.label,
        draws=len(side.draws),
        chains=side.chains,
        independent=side.independent,
        seconds=side.seconds,
        ess=side.least_ess,
        worst_rhat=side.worst_rhat,
        verdict=side.verdict,
    )
