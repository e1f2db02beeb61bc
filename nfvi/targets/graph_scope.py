"""Values and gradients of a target from graphs, where batches of one size come again and again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.evaluated_by import is_shared
from nfvi.tracing import Traced, TraceError, same, traced
from nfvi.utils import unvalidated

__all__ = ["Graphs", "from_graph", "graphs", "has_graph"]

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]
Plain: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
Kind: TypeAlias = Literal["value", "score"]

CALLS = 32
"""Of one size before a graph is made. It costs as much as 20 plain calls of a Pyro model, 70 of one
with a loop of 200 steps, and 100 of a function of some lines, which take 0.03 s together. A size
that has come 32 times comes some hundred times in the Gaussian fits of a climb."""
MOST_POINTS = 4_096
"""Of values alone: with more, arithmetic takes the time."""
LOOK_AGAIN = 500
# As for the chains of NUTS: other numbers, and not so far that densities end.
SPREAD = 0.1
COST, SHARE = 60.0, 0.05
"""A graph of a loop of 200 steps costs 60 plain calls. None may take more of a limit in seconds."""
EAGER = "eager: "


class Graphs:
    """Graphs for the targets that are evaluated within a scope, see :func:`graphs`.

    Args:
        on: whether any are made.
        seconds: of the whole, of which a graph must not take much; ``None`` for no limit.
    """

    def __init__(self, on: bool = True, seconds: float | None = None) -> None:
        self.on, self.seconds = on, seconds
        self._owned: dict[int, _OfTarget] = {}

    def text(self, target: Target) -> str:
        """``"traced"`` where a graph was made for a target, or ``"eager: "`` and why not."""
        if not self.on:
            return EAGER + "compile=False"
        own = self._of(target)
        if own.reason is not None:
            return EAGER + own.reason
        return "traced" if own.graphs else EAGER + "no size of a batch came often enough"

    def find(
        self, kind: Kind, target: Target, z: Tensor, plain: Plain, to_come: int
    ) -> tuple[Tensor, ...] | None:
        """What ``plain`` gives at z; ``None`` where it has to be called."""
        if not self.on or torch.is_inference_mode_enabled():
            return None
        return self._of(target).find(kind, z, plain, to_come)

    def has(self, kind: Kind, target: Target, z: Tensor) -> bool:
        """Whether there is a graph for batches like z."""
        return self.on and _key(kind, z) in self._of(target).graphs

    def _of(self, target: Target) -> _OfTarget:
        # The target is held there, so that no other takes over its number.
        return self._owned.setdefault(id(target), _OfTarget(target, self.seconds))


class _OfTarget:
    """The graphs of one target, by kind and by size, strides and dtype of the batch."""

    def __init__(self, target: Target, seconds: float | None) -> None:
        self.target, self.seconds = target, seconds
        self.reason: str | None = None
        self.graphs: dict[Any, Traced] = {}
        self._calls: Counter[Any] = Counter()

    def find(self, kind: Kind, z: Tensor, plain: Plain, to_come: int) -> tuple[Tensor, ...] | None:
        if self.reason is not None or (kind == "value" and len(z) > MOST_POINTS):
            return None
        key = _key(kind, z)
        self._calls[key] += 1
        early = self._calls[key] + to_come < CALLS
        if key not in self.graphs and (early or not self._trace(key, z, plain)):
            return None
        try:
            values = self.graphs[key](z)
        except RuntimeError:  # a factorisation that fails, which the plain way knows how to take
            return None
        if self._calls[key] % LOOK_AGAIN == 0 and not same(values, plain(z)):
            self.reason = "the target is no longer what had been traced"
            self.graphs.clear()
            return None
        return values

    def _trace(self, key: Any, z: Tensor, plain: Plain) -> bool:
        self.reason = self._refused(z) or self._too_dear(z, plain)
        if self.reason is not None:
            return False
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        points = [(z.clone(),), (z + SPREAD * noise,)]
        try:
            # What is drawn here, by a target that is then refused, is drawn for nothing.
            with unvalidated(), torch.random.fork_rng(devices=[]):
                self.graphs[key] = traced(plain, points)
        except TraceError as error:
            if isinstance(error.__cause__, LinAlgError):
                self._calls[key] = 0  # the points are at fault: later, at others
            else:
                self.reason = str(error)
        return key in self.graphs

    def _refused(self, z: Tensor) -> str | None:
        if z.device.type != "cpu":
            return "not on the CPU"
        if self.target.differentiable_once:
            return "its gradient is that of another library"
        return "it is evaluated draw by draw" if self.target.batching == "loop" else None

    def _too_dear(self, z: Tensor, plain: Plain) -> str | None:
        if self.seconds is None:
            return None
        started = time.perf_counter()
        plain(z)
        if COST * (time.perf_counter() - started) <= SHARE * self.seconds:
            return None
        return "a graph would take too much of the budget"


def _key(kind: Kind, z: Tensor) -> Any:
    return kind, z.shape, z.stride(), z.dtype


_SCOPE: ContextVar[Graphs | None] = ContextVar("graphs", default=None)


@contextmanager
def graphs(on: bool = True, seconds: float | None = None) -> Iterator[Graphs]:
    """A scope in which values and gradients of targets may come from graphs.

    A graph is made at the 32nd batch of one size, or where as many are to come. It is held against
    the plain way at two sets of points, and again at every 500th use; where one number differs in
    its last bit, or the target allows no graph, all goes on the plain way. What comes out is the
    same in any case. Within another scope this one is that scope. Threads that are started within
    are outside of it.

    Args:
        on: whether graphs are made at all.
        seconds: of the whole; a graph that would take over a twentieth of it is not made.
    """
    outer = _SCOPE.get()
    if outer is not None:
        yield outer
        return
    own = Graphs(on, seconds)
    token = _SCOPE.set(own)
    try:
        yield own
    finally:
        _SCOPE.reset(token)


def from_graph(
    kind: Kind, target: Target, z: Tensor, plain: Plain, to_come: int = 0
) -> tuple[Tensor, ...] | None:
    """What ``plain`` gives at points z (n, d); ``None`` where it has to be called.

    That is so where processes share the target: what one of them evaluates itself may be a graph.

    Args:
        kind: of the numbers.
        target: log p.
        z: the points.
        plain: the plain way.
        to_come: batches of this size that follow; a graph is made at once where they are enough.
    """
    scope = _SCOPE.get()
    if scope is None or is_shared():
        return None
    return scope.find(kind, target, z, plain, to_come)


def has_graph(kind: Kind, target: Target, z: Tensor) -> bool:
    """Whether there is a graph for batches like z (n, d)."""
    scope = _SCOPE.get()
    return scope is not None and not is_shared() and scope.has(kind, target, z)
