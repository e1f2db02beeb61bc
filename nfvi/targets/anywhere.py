"""A target's log-density at points that may be anywhere."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.checks import checked_call
from nfvi.targets.evaluated_by import from_others
from nfvi.targets.factorization import evaluate_anywhere
from nfvi.targets.graph_scope import from_graph
from nfvi.targets.work import points_at_once

__all__ = ["log_prob_anywhere"]

WRITTEN = 2**24
"""Numbers that a piece of many values writes: 32 768 values of a regression on 5 000 rows take 10
CPU seconds at 16 384 at once, and 2 at 128."""


def log_prob_anywhere(target: Target, z: Tensor) -> Tensor:
    """log p(z) (n) at points (n, d), differentiable; NaN where a factorisation fails.

    Far from its mass a target may be asked for the Cholesky factor of what is no covariance any
    more, which torch answers with an error for the whole batch. The batch is then run again with
    factors that are NaN where there are none. Where an error comes all the same, the batch is
    halved until only the points at fault are left. Where several processes evaluate the target,
    each has its share of the points, and the values are differentiable once.

    Values alone of many points are taken in pieces that suit a CPU's memory.

    Raises:
        TargetError: the values are not (n), or the target wrote into z.
    """
    shared = from_others(target, z)
    if shared is not None:
        return shared
    if torch.is_grad_enabled() and z.requires_grad:
        return evaluate_anywhere(target.log_prob, z, target.name)
    count = points_at_once(target, z, WRITTEN)
    if count >= len(z):
        return _value(target, z)
    return torch.cat([_value(target, piece) for piece in z.split(count)])


def _value(target: Target, z: Tensor) -> Tensor:
    found = from_graph("value", target, z, partial(_valued, target))
    return evaluate_anywhere(target.log_prob, z, target.name) if found is None else found[0]


@torch.no_grad()
def _valued(target: Target, z: Tensor) -> tuple[Tensor, ...]:
    return (checked_call(target.log_prob, z, target.name),)
