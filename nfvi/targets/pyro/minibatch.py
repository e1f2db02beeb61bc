"""A Pyro model whose plate draws its own rows: its density at given rows, and at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from nfvi.targets.checks import Evaluate, agree, isolated
from nfvi.targets.pieced_sum import DRAWS, PIECE, Piece, pieced_sum, wide_dtype
from nfvi.targets.pyro.batching import PyroBatching, batched
from nfvi.targets.pyro.evaluator import on_unconstrained
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site
from nfvi.utils import Counter

__all__ = ["OfRows", "density_of_all", "density_of_rows", "minibatch_plate", "numbers_of_draw"]

OfRows: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From points z (n, d) and the numbers of B rows to (n)."""


def minibatch_plate(program: Program) -> str | None:
    """The plate whose rows a step may draw anew; ``None`` where there is none.

    It draws its own rows, holds data alone, is the only one that does, and the density is a sum
    over its rows: not, for one, the log of a sum over a discrete site outside of it.
    """
    plates = [plate for plate in program.random_plates if plate not in program.unscaled]
    if len(plates) != 1:
        return None
    with isolated():
        return plates[0] if _adds_up(program, plates[0]) else None


def _adds_up(program: Program, plate: str) -> bool:
    """Whether rows that change places between two subsamples leave the sum as it is."""
    count = len(program.subsamples[plate])
    if count < 2:
        return program.summation is None
    order = torch.randperm(program.sizes[plate], device=program.subsamples[plate].device)
    first, second, half = order[:count], order[-count:], count // 2
    mixed = torch.cat([first[:half], second[half:]]), torch.cat([second[:half], first[half:]])
    joint = [
        _with_rows(program, plate, rows).log_joint(program.feasible)
        for rows in (first, second, *mixed)
    ]
    return agree(joint[0] + joint[1], joint[2] + joint[3])


def _with_rows(program: Program, plate: str, rows: Tensor) -> Program:
    return replace(program, subsamples={**program.subsamples, plate: rows})


def density_of_rows(
    program: Program,
    sites: Mapping[str, Site],
    plate: str,
    batching: PyroBatching,
    model_dtype: torch.dtype,
) -> OfRows:
    """log p of a model on unconstrained space, as a function of the rows of a plate as well."""

    def evaluate(z: Tensor, rows: Tensor) -> Tensor:
        wide = torch.promote_types(z.dtype, model_dtype)
        density = batched(_with_rows(program, plate, rows), sites, batching)
        return on_unconstrained(density, sites, wide)(z)

    return evaluate


def density_of_all(program: Program, plate: str, of_rows: OfRows, numbers: float) -> Evaluate:
    """log p of all N rows of a plate that takes B at a time.

    A plate takes B rows and no other number of them. With J(I) the density of rows I, scaled by
    N/B, that of all rows is Σ w J(I) over the N/B parts of the rows, each with w = B/N. Where the
    last part is short by k rows, the last row is repeated in it, and what that is too much is taken
    off by w = −k/N of B times that row. All w add up to 1, so that the prior is counted once.

    Args:
        program: the model.
        plate: the name of the plate.
        of_rows: its density at given rows.
        numbers: that it writes for one draw.
    """
    like, n = program.subsamples[plate], program.sizes[plate]
    at_once = max(min(int(PIECE / max(numbers, 1.0)), DRAWS), 1)

    def of_part(z: Tensor, rows: Tensor, weight: float) -> Tensor:
        return weight * of_rows(z, rows).to(wide_dtype(z))

    def pieces() -> Iterator[Piece]:
        for rows, weight in _parts(n, len(like)):
            yield partial(of_part, rows=rows.to(like.device), weight=weight)

    return lambda z: pieced_sum(pieces, z, at_once).to(z.dtype)


def _parts(n: int, count: int) -> Iterator[tuple[Tensor, float]]:
    """Parts of n rows, each with so many of them, and their weights."""
    for start in range(0, n, count):
        yield torch.arange(start, start + count).clamp_max(n - 1), count / n
    if short := -n % count:
        yield torch.full((count,), n - 1), -short / n


def numbers_of_draw(of_rows: OfRows, points: Tensor, rows: Tensor, batching: str) -> float:
    """Numbers that the operations of a model write for one of some points (n, d)."""
    with torch.no_grad(), Counter() as counter:
        of_rows(points, rows)
    # Under vmap a function of torch sees one point, and runs once for all.
    return float(counter.numbers) / (1 if batching == "vmap" else len(points))
