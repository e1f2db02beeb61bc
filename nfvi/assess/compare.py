"""A fit against MCMC, or any two sides: a table per scalar, and distances between the draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.assess.compare_sides import Moments, Posterior, Side, exact_side, moments, side_of
from nfvi.assess.compare_text import comparison_text
from nfvi.assess.sliced_wasserstein import sliced_wasserstein
from nfvi.mcmc import MCMCRun, scalar_names
from nfvi.utils import check_whole

__all__ = ["Comparison", "Distances", "Row", "compare"]

# As many as four chains of 1 000, so that a sampler by default gives as many as a fit is asked
# for.
DEFAULT_DRAWS = 4000
# Below, an sd and its error say nothing.
LEAST_DRAWS = 8


@dataclass(frozen=True)
class Row:
    """One scalar of a site on both sides.

    Attributes:
        name: such as ``theta[3]``.
        left: mean, sd, 5, 50 and 95 % quantiles of the left side.
        right: of the right side.
        mean_difference: (mean left − mean right) / sd right.
        mean_difference_se: its Monte-Carlo standard error.
        sd_ratio: sd left / sd right.
        sd_ratio_se: its Monte-Carlo standard error.
        ess_per_second: left and right, effective draws per second of wall time: of a run the bulk
            ESS of this scalar, warm-up included in the time; of a fit the importance-sampling ESS
            of its diagnostic draws, which is one number for all scalars; nan where unknown.
    """

    name: str
    left: Moments
    right: Moments
    mean_difference: float
    mean_difference_se: float
    sd_ratio: float
    sd_ratio_se: float
    ess_per_second: tuple[float, float]


@dataclass(frozen=True)
class Distances:
    """Sliced Wasserstein distances on unconstrained space, each coordinate in sds.

    Attributes:
        draws: draws of each side that went in.
        between: left to right.
        halves: for each side, between its first and second half (of half as many draws): the
            distance that sampling alone leaves, and for chains, that they have not converged.
        to_exact: left and right to exact draws; ``None`` if the target has no sampler.
        exact_floor: between two sets of exact draws, of as many draws as the sides.
    """

    draws: int
    between: float
    halves: tuple[float, float]
    to_exact: tuple[float, float] | None
    exact_floor: float | None


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

    def __str__(self) -> str:
        return comparison_text(self)

    def __repr__(self) -> str:
        return f"Comparison({self.left.label!r}, {self.right.label!r}, {self.left.target.name!r})"

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
        table=_rows(left, right),
        against_exact=(_rows(left, exact), _rows(right, exact)) if exact else None,
        distances=_distances(left, right, exact, twin, min(sizes), generator),
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


def _rows(left: Side, right: Side) -> tuple[Row, ...]:
    rows = []
    for site, x in left.sites.items():
        columns = zip(_columns(x), _columns(right.sites[site]), strict=True)
        names = scalar_names(site, tuple(x.shape[1:]))
        for k, (name, (a, b)) in enumerate(zip(names, columns, strict=True)):
            if bool((a == a[0]).all()) and bool((b == a[0]).all()):
                continue
            per_second = (left.ess_per_second(site, k), right.ess_per_second(site, k))
            rows.append(_row(name, moments(left, a), moments(right, b), per_second))
    return tuple(rows)


def _columns(x: Tensor) -> tuple[Tensor, ...]:
    """The scalars of a site (n, \\*event), each (n,), as float64 on the CPU."""
    return x.detach().double().cpu().reshape(len(x), -1).unbind(1)


def _row(name: str, a: Moments, b: Moments, per_second: tuple[float, float]) -> Row:
    unit = b.sd if b.sd > 0 else float("nan")
    ratio = a.sd / unit
    return Row(
        name=name,
        left=a,
        right=b,
        mean_difference=(a.mean - b.mean) / unit,
        mean_difference_se=(a.mean_se**2 + b.mean_se**2) ** 0.5 / unit,
        sd_ratio=ratio,
        sd_ratio_se=ratio * (a.log_sd_se**2 + b.log_sd_se**2) ** 0.5,
        ess_per_second=per_second,
    )


def _distances(
    left: Side,
    right: Side,
    exact: Side | None,
    twin: Side | None,
    n: int,
    generator: torch.Generator,
) -> Distances:
    x, y = _thinned(left.draws, n), _thinned(right.draws, n)
    references = [x, y] if exact is None else [_thinned(exact.draws, n)]
    sd = torch.stack([r.var(0) for r in references]).mean(0).sqrt()
    sd = torch.where(sd > 0, sd, torch.ones_like(sd))

    def distance(a: Tensor, b: Tensor) -> float:
        return sliced_wasserstein(a / sd, b / sd, generator=generator)

    half = n // 2
    to_exact = floor = None
    if exact is not None and twin is not None:
        e = references[0]
        to_exact = (distance(x, e), distance(y, e))
        floor = distance(_thinned(twin.draws, n), e)
    return Distances(
        draws=n,
        between=distance(x, y),
        halves=(distance(x[:half], x[-half:]), distance(y[:half], y[-half:])),
        to_exact=to_exact,
        exact_floor=floor,
    )


def _thinned(draws: Tensor, n: int) -> Tensor:
    """n of the draws, evenly spaced in their order, as float64 on the CPU."""
    index = torch.linspace(0, len(draws) - 1, n, device="cpu", dtype=torch.float64).round().long()
    return draws.detach().double().cpu()[index]
