"""A target's log-density at points that may be anywhere."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.checks import Evaluate, checked_call
from nfvi.targets.evaluated_by import from_others
from nfvi.targets.factorization import NanWhereSingular
from nfvi.targets.graph_scope import from_graph

__all__ = ["evaluate_anywhere", "log_prob_anywhere"]

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]


def log_prob_anywhere(target: Target, z: Tensor) -> Tensor:
    """log p(z) (n) at points (n, d), differentiable; NaN where a factorisation fails.

    Far from its mass a target may be asked for the Cholesky factor of what is no covariance any
    more, which torch answers with an error for the whole batch. The batch is then run again with
    factors that are NaN where there are none. Where an error comes all the same, the batch is
    halved until only the points at fault are left. Where several processes evaluate the target,
    each has its share of the points, and the values are differentiable once.

    Raises:
        TargetError: the values are not (n), or the target wrote into z.
    """
    shared = from_others(target, z)
    if shared is not None:
        return shared
    if not (torch.is_grad_enabled() and z.requires_grad):
        found = from_graph("value", target, z, partial(_valued, target))
        if found is not None:
            return found[0]
    return evaluate_anywhere(target.log_prob, z, target.name)


def evaluate_anywhere(evaluate: Evaluate, z: Tensor, name: str) -> Tensor:
    """The same of a function of points (n, d) -> (n,), which messages call by a name."""
    try:
        return checked_call(evaluate, z, name)
    except LinAlgError:
        return _in_spite_of_failures(evaluate, z, name)


@torch.no_grad()
def _valued(target: Target, z: Tensor) -> tuple[Tensor, ...]:
    return (checked_call(target.log_prob, z, target.name),)


def _in_spite_of_failures(evaluate: Evaluate, z: Tensor, name: str) -> Tensor:
    try:
        with NanWhereSingular():
            return checked_call(evaluate, z, name)
    except LinAlgError:
        if len(z) == 1:
            return z.sum(-1) * torch.nan
        return torch.cat([evaluate_anywhere(evaluate, part, name) for part in z.tensor_split(2)])
