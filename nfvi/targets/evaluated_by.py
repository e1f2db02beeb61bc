"""Who evaluates a target: this process alone, or others with it, which know the same target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.known_gradient import known_gradient

__all__ = [
    "SharedEvaluation",
    "alone",
    "evaluated_by",
    "from_others",
    "is_shared",
    "log_prob_of",
]

SharedEvaluation: TypeAlias = Callable[[Tensor, bool], tuple[Tensor, ...]]
"""From points (n, d) to log p (n) and, where they are asked for, the gradients (n, d)."""

_SCOPE: ContextVar[tuple[Target, SharedEvaluation] | None] = ContextVar("shared", default=None)


@contextmanager
def evaluated_by(target: Target, evaluate: SharedEvaluation) -> Iterator[None]:
    """A scope in which batches of a target are evaluated by a function, and not by this process.

    Threads that are started within are outside of it.
    """
    with _within((target, evaluate)):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """A scope within such a one, in which this process evaluates by itself."""
    with _within(None):
        yield


def is_shared() -> bool:
    """Whether some target is evaluated by a function now."""
    return _SCOPE.get() is not None


def from_others(target: Target, z: Tensor) -> Tensor | None:
    """log p (n) at points (n, d), differentiable once; ``None`` where the target is not shared."""
    scope = _SCOPE.get()
    if scope is None or scope[0] is not target or not len(z):
        return None
    if torch.is_grad_enabled() and z.requires_grad:
        log_p, score = scope[1](z.detach(), True)
        return known_gradient(z, log_p, score)
    return scope[1](z.detach(), False)[0]


def log_prob_of(target: Target, z: Tensor) -> Tensor:
    """log p(z) (n), for a target that is made of another one: shared where that one is."""
    shared = from_others(target, z)
    return target.log_prob(z) if shared is None else shared


@contextmanager
def _within(scope: tuple[Target, SharedEvaluation] | None) -> Iterator[None]:
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)
