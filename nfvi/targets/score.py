"""A target's log-density with its gradient, at points that may be anywhere."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nfvi.targets.anywhere import OF_GRADIENTS, differentiated, log_prob_anywhere
from nfvi.targets.base import Target
from nfvi.targets.checks import checked_call
from nfvi.targets.graph_scope import from_graph
from nfvi.targets.work import points_at_once

__all__ = ["log_prob_and_score"]


def log_prob_and_score(
    target: Target, z: Tensor, beta: float = 1.0, *, to_come: int = 0
) -> tuple[Tensor, Tensor]:
    """β log p(z) (n) and its gradient (n, d) at points (n, d); NaN where a factorisation fails.

    The rest of a batch in which one fails is found as by :func:`~nfvi.targets.log_prob_anywhere`.
    Large batches are taken in pieces that suit a CPU's memory.

    Args:
        target: log p.
        z: the points.
        beta: β.
        to_come: batches of this size that follow, for which a graph may pay at once.
    """
    z = z.detach()
    count = points_at_once(target, z, OF_GRADIENTS)
    if count < len(z):
        parts = [_of_piece(target, piece, beta, to_come) for piece in z.split(count)]
        return torch.cat([log_p for log_p, _ in parts]), torch.cat([score for _, score in parts])
    return _of_piece(target, z, beta, to_come)


def _of_piece(target: Target, z: Tensor, beta: float, to_come: int) -> tuple[Tensor, Tensor]:
    if beta == 1:
        found = from_graph("score", target, z, partial(_scored, target), to_come)
        if found is not None:
            return found[0], found[1]
    return differentiated(lambda leaf: beta * log_prob_anywhere(target, leaf), z)


def _scored(target: Target, z: Tensor) -> tuple[Tensor, ...]:
    """The same in the plain way, with an error where a factorisation fails."""
    return differentiated(lambda leaf: checked_call(target.log_prob, leaf, target.name), z)
