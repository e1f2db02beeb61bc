"""Log-likelihoods and new data of a Pyro model at a batch of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, isolated
from nfvi.targets.pyro.batching import map_rows, rows_of
from nfvi.targets.pyro.handlers import Values
from nfvi.targets.pyro.program import Program
from nfvi.utils import at_once

__all__ = ["by_observation", "draw_data", "with_arguments"]

OfPoint: TypeAlias = Callable[[Values], dict[str, Tensor]]

NO_DATA = (
    "has no observed site with these arguments; pass those with which it has data, so that"
    " pyro.sample(..., obs=) tells what the observations are"
)


def with_arguments(
    program: Program, args: tuple[Any, ...] | None, kwargs: Mapping[str, Any] | None
) -> Program:
    """The model with other arguments; ``None`` leaves them as they are."""
    return replace(
        program,
        args=program.args if args is None else args,
        kwargs=program.kwargs if kwargs is None else kwargs,
    )


@torch.no_grad()
def by_observation(program: Program, name: str, values: Values) -> dict[str, Tensor]:
    """The log-likelihood of each observation at points: site -> (n, \\*shape).

    Args:
        program: the model.
        name: what messages call it.
        values: of its continuous latent sites, (n, \\*shape).

    Raises:
        TargetError: there are no observations, or none that can be told apart.
    """
    try:
        with isolated(), torch.no_grad():
            first = program.pointwise(next(rows_of(values)))
            if not first:
                raise TargetError(NO_DATA)
            mapped = map_rows(program.pointwise, values)
            return _in_pieces(mapped, values, first)
    except TargetError as error:
        raise TargetError(f"{name!r}: {error}") from error.__cause__


@torch.no_grad()
def draw_data(
    program: Program, name: str, values: Values, seed: int, *, everything: bool
) -> dict[str, Tensor]:
    """New data at points: site -> (n, \\*shape), by vmap where the model goes through it.

    Args:
        program: the model.
        name: what messages call it.
        values: of its continuous latent sites, (n, \\*shape).
        seed: of the draws; no global random state changes.
        everything: whether deterministic sites are given too.

    Raises:
        TargetError: there is nothing to draw, or the model raised.
    """

    def one(values: Values) -> dict[str, Tensor]:
        return program.predict(values, everything=everything)

    def loop(values: Values) -> dict[str, Tensor]:
        found = [one(row) for row in rows_of(values)]
        return {key: torch.stack([row[key] for row in found]) for key in found[0]}

    mapped = torch.func.vmap(one, randomness="different")
    try:
        with isolated(seed), torch.no_grad():
            first = one(next(rows_of(values)))
            if not first:
                raise TargetError(NO_DATA)
        with suppress(*USER_ERRORS), isolated(seed), torch.no_grad():
            return _in_pieces(mapped, values, first)
        with isolated(seed), torch.no_grad():
            return _in_pieces(loop, values, first)
    except TargetError as error:
        raise TargetError(f"{name!r}: {error}") from error.__cause__
    except USER_ERRORS as error:
        raise TargetError(
            f"{name!r}: drawing data from it raised {type(error).__name__}: {error}. Latent sites"
            " keep the shapes they were fitted with: new data must have the same groups, and may"
            " have other rows"
        ) from error


def _in_pieces(way: OfPoint, values: Values, first: Values) -> dict[str, Tensor]:
    like = next(iter(first.values()))
    n = len(next(iter(values.values())))
    count = at_once(sum(value.numel() for value in first.values()), n, like.device)
    starts = range(0, n, count)
    found = [way({k: v[start : start + count] for k, v in values.items()}) for start in starts]
    return {key: torch.cat([piece[key] for piece in found]) for key in found[0]}
