"""What sets two sides apart, in numbers: a row for each scalar, and distances between the draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.assess.compare_sides import Moments, Side, moments
from nfvi.assess.sliced_wasserstein import sliced_wasserstein
from nfvi.utils import scalar_names

__all__ = ["Distances", "Row", "distances_between", "rows_of"]


@dataclass(frozen=True)
class Row:
    """One scalar of a site on both sides.

    Attributes:
        name: such as ``theta[3]``.
        left: mean, sd and 94 % interval of highest density of the left side.
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


def rows_of(left: Side, right: Side) -> tuple[Row, ...]:
    """A row for every scalar that is not constant, left against right."""
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


def distances_between(
    left: Side,
    right: Side,
    exact: Side | None,
    twin: Side | None,
    n: int,
    generator: torch.Generator,
) -> Distances:
    """Distances between n draws of each side.

    Args:
        left: one side.
        right: the other.
        exact: exact draws, if there are any.
        twin: more of them, to compare with.
        n: at most as many as either side has.
        generator: of the directions.
    """
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
