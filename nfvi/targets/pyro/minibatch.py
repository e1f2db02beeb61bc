"""A Pyro model whose plate draws its own rows: its density at given rows, and at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from nfvi.targets.checks import Evaluate, agree, isolated
from nfvi.targets.pieced_sum import DRAWS, PIECE, Piece, pieced_sum, wide_dtype
from nfvi.targets.pyro.all_rows import list_of_parts
from nfvi.targets.pyro.batching import PyroBatching, batched
from nfvi.targets.pyro.evaluator import on_unconstrained
from nfvi.targets.pyro.handlers import Values
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site
from nfvi.utils import Counter

__all__ = [
    "OfRows",
    "adds_up",
    "density_of_all",
    "density_of_rows",
    "minibatch_plate",
    "numbers_of_draw",
]

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
        return plates[0] if adds_up(program, plates[0], program.feasible) else None


def adds_up(program: Program, plate: str, values: Values) -> bool:
    """Whether rows that change places between two subsamples leave the sum as it is."""
    count = len(program.subsamples[plate])
    if count < 2:
        return program.summation is None
    order = torch.randperm(program.sizes[plate], device=program.subsamples[plate].device)
    first, second, half = order[:count], order[-count:], count // 2
    mixed = torch.cat([first[:half], second[half:]]), torch.cat([second[:half], first[half:]])
    joint = [program.at({plate: rows}).log_joint(values) for rows in (first, second, *mixed)]
    return agree(joint[0] + joint[1], joint[2] + joint[3])


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
        density = batched(program.at({plate: rows}), sites, batching)
        return on_unconstrained(density, sites, wide)(z)

    return evaluate


def density_of_all(program: Program, plate: str, of_rows: OfRows, numbers: float) -> Evaluate:
    """log p of all N rows of a plate that takes B at a time.

    With J(I) the density of rows I, scaled by N/B, that of all rows is Σ w J(I) over the parts of
    the rows, with weights w of :func:`~nfvi.targets.pyro.all_rows.list_of_parts`.

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
        for rows, weight in zip(*list_of_parts(n, len(like)), strict=True):
            yield partial(of_part, rows=rows.to(like.device), weight=float(weight))

    return lambda z: pieced_sum(pieces, z, at_once).to(z.dtype)


def numbers_of_draw(of_rows: OfRows, points: Tensor, rows: Tensor, batching: str) -> float:
    """Numbers that the operations of a model write for one of some points (n, d)."""
    with torch.no_grad(), Counter() as counter:
        of_rows(points, rows)
    # Under vmap a function of torch sees one point, and runs once for all.
    return float(counter.numbers) / (1 if batching == "vmap" else len(points))
