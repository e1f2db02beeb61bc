"""A step whose draws or rows do not fit into memory at once: its gradient, summed over pieces."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nfvi.training.ensemble import Ensemble
from nfvi.training.group_gradients import by_group
from nfvi.utils import sizes

__all__ = ["LateNoise", "accumulated"]


class LateNoise(Sequence[Tensor]):
    """Base draws of a step, made anew, and the same, each time that a piece is asked for.

    Args:
        ensemble: whose base they are from.
        n: draws for each restart.
        at_once: how many of them a piece has.
        generator: of the seed of these draws.
    """

    def __init__(
        self, ensemble: Ensemble, n: int, at_once: int, generator: torch.Generator
    ) -> None:
        self.ensemble, drawn = ensemble, list(sizes(n, at_once))
        seeds = torch.randint(2**62, (len(drawn),), generator=generator, device=generator.device)
        self.pieces = [
            (seed, size, range(size)) for seed, size in zip(seeds.tolist(), drawn, strict=True)
        ]
        self.restarts = slice(None)

    @property
    def sizes(self) -> list[int]:
        """How many draws each piece has."""
        return [len(kept) for _, _, kept in self.pieces]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, piece: Any) -> Any:
        """The draws (R, m, d) of a piece; of a tuple of slices, some draws for some restarts."""
        if isinstance(piece, tuple):
            return self._some(*piece)
        seed, size, kept = self.pieces[piece]
        generator = torch.Generator(self.ensemble.flat.device).manual_seed(seed)
        draws = self.ensemble.draw(size, generator)
        return draws[self.restarts, kept.start : kept.stop]

    def _some(self, restarts: slice, draws: slice) -> LateNoise:
        first, last, _ = draws.indices(sum(self.sizes))
        chosen, pieces = copy.copy(self), []
        for seed, size, kept in self.pieces:
            part = kept[max(first, 0) : max(last, 0)]
            if part:
                pieces.append((seed, size, part))
            first, last = first - len(kept), last - len(kept)
        chosen.pieces, chosen.restarts = pieces, restarts
        return chosen

    def __iter__(self) -> Iterator[Tensor]:
        return (self[piece] for piece in range(len(self)))


def accumulated(
    evaluate: Callable[[Any], tuple[Tensor, Tensor]],
    pieces: Sequence[Any],
    flat: Tensor,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The terms of all pieces, with the gradient of their mean added to ``flat.grad``.

    The gradient of a mean over n terms is the sum of those of its pieces over n, to rounding; the
    graph of one piece is freed before the next is made.

    Args:
        evaluate: from a piece of m draws or rows to loss and quantity, one term each (R, m).
        pieces: all draws or rows of the step.
        flat: the parameters (R, P).
        groups: of draws for which the gradient is wanted apart; 0 for none.

    Returns:
        Loss and quantity (R, n) without their graphs, and the gradients of groups (G, R, P).
    """
    losses, quantities = [], []
    by_groups: Tensor | None = None
    n, first = _count(pieces), 0
    for piece in pieces:
        terms, quantity = evaluate(piece)
        if groups:
            part = by_group(terms, flat, groups, first, n)
            by_groups = part if by_groups is None else by_groups + part
        (terms.sum() / n).backward(inputs=[flat])
        losses.append(terms.detach())
        quantities.append(quantity)
        first += terms.shape[1]
        del terms, piece
    return torch.cat(losses, 1), torch.cat(quantities, 1), by_groups


def _count(pieces: Sequence[Any]) -> int:
    if isinstance(pieces, LateNoise):
        return sum(pieces.sizes)
    return sum(piece.shape[1] if isinstance(piece, Tensor) else len(piece) for piece in pieces)
