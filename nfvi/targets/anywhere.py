"""A target's log-density at points that may be anywhere."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.checks import Evaluate, checked_call
from nfvi.targets.evaluated_by import from_others
from nfvi.targets.factorization import evaluate_anywhere
from nfvi.targets.graph_scope import from_graph
from nfvi.targets.known_gradient import known_gradient
from nfvi.targets.work import points_at_once

__all__ = ["OF_GRADIENTS", "differentiated", "log_prob_anywhere"]

OF_VALUES = 2**24
"""Numbers that a piece of many values writes: 32 768 values of a regression on 5 000 rows take 10
CPU seconds at 16 384 at once, and 2 at 128."""
OF_GRADIENTS = 2**26
"""Likewise with gradients, without what these take: 2 048 of that regression take a third of the
time in pieces of 173."""
MOST = 32
"""Pieces that a trace of a step unrolls."""


def log_prob_anywhere(target: Target, z: Tensor) -> Tensor:
    """log p(z) (n) at points (n, d), differentiable; NaN where a factorisation fails.

    Far from its mass a target may be asked for the Cholesky factor of what is no covariance any
    more, which torch answers with an error for the whole batch. The batch is then run again with
    factors that are NaN where there are none. Where an error comes all the same, the batch is
    halved until only the points at fault are left. Where several processes evaluate the target,
    each has its share of the points, and the values are differentiable once.

    Many points are taken in pieces that suit a CPU's memory, each with its gradient where one is
    wanted; the values are then differentiable once.

    Raises:
        TargetError: the values are not (n), or the target wrote into z.
    """
    shared = from_others(target, z)
    if shared is not None:
        return shared
    if torch.is_grad_enabled() and z.requires_grad:
        return _differentiable(target, z)
    count = points_at_once(target, z, OF_VALUES)
    if count >= len(z):
        return _value(target, z)
    return torch.cat([_value(target, piece) for piece in z.split(count)])


def differentiated(evaluate: Evaluate, z: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n) of a function of points z (n, d), and the gradient (n, d) of each."""
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        values = evaluate(leaf)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


def _differentiable(target: Target, z: Tensor) -> Tensor:
    evaluate = partial(evaluate_anywhere, target.log_prob, name=target.name)
    count = points_at_once(target, z, OF_GRADIENTS)
    if count >= len(z):
        return evaluate(z)
    if len(z) > MOST * count:
        bool(z.isfinite().any())  # reads a value, so that no trace goes on from here
    parts = [differentiated(evaluate, piece) for piece in z.detach().split(count)]
    value, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
    return known_gradient(z, value, gradient)


def _value(target: Target, z: Tensor) -> Tensor:
    found = from_graph("value", target, z, partial(_valued, target))
    return evaluate_anywhere(target.log_prob, z, target.name) if found is None else found[0]


@torch.no_grad()
def _valued(target: Target, z: Tensor) -> tuple[Tensor, ...]:
    return (checked_call(target.log_prob, z, target.name),)
