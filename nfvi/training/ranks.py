"""One fit of many processes: each evaluates its share of a step, and all take the same step."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, distributed

from nfvi.errors import FitError
from nfvi.training.ensemble import Ensemble
from nfvi.training.launch import join_launched
from nfvi.training.objectives import Objective

__all__ = ["STOPS", "Distribute", "Found", "ProcessError", "Ranks"]

Distribute: TypeAlias = Literal["draws", "restarts", False] | None

WHAT = {"draws": "draws or rows of a step", "restarts": "restarts"}
LONGEST = 1_024
"""Bytes of a reason to stop, or of an error, that other processes are told."""
STOPS = (Exception, KeyboardInterrupt)
RAISED = "\0"
"""Before a reason to stop that is an error."""


class ProcessError(RuntimeError):
    """Another process of a group raised, and this one cannot go on without it."""


class Found(NamedTuple):
    """What a step is evaluated to.

    Attributes:
        terms: loss, one a draw or row (R, n).
        quantity: what is recorded beside it (R, n).
        by_group: the gradients of groups of draws (G, R, P), where they were asked for.
    """

    terms: Tensor
    quantity: Tensor
    by_group: Tensor | None


Evaluate: TypeAlias = Callable[[Ensemble, Objective, Any, Tensor], Found]
"""From guides, loss, batch and β to terms; the gradient is left in the ``.grad`` of the guides."""


class Ranks:
    """The processes of the initialised group of ``torch.distributed``, or this one alone.

    All draw the same numbers, evaluate their share, and add up what they found, so that every
    process has the whole loss, gradient and record of a step, bit for bit the same, and whatever
    follows from them is the same too.

    Args:
        distribute: what is split: ``"draws"``, the draws or rows of a step, or ``"restarts"``.
            ``None`` is ``"draws"`` where there is a group, and ``False`` is nothing.

    Raises:
        ValueError: it is none of these, or asks for a group where none is initialised.
    """

    def __init__(self, distribute: Distribute = False) -> None:
        if distribute is not None and distribute is not False and distribute not in WHAT:
            raise ValueError(
                f'distribute must be "draws", "restarts", False or None, got {distribute!r}'
            )
        if distribute and not _initialised():
            raise ValueError(
                "distribute= needs an initialised group of processes: call"
                ' torch.distributed.init_process_group("gloo") first, in a script that torchrun'
                " starts; or leave distribute= out"
            )
        self.distribute = distribute

    @classmethod
    def launched(cls, distribute: Distribute = None) -> Ranks:
        """The same for a fit that a user asks for, which may join what torchrun has started.

        Raises:
            ValueError: as for :class:`Ranks`.
        """
        if distribute is not False:
            join_launched()
        return cls(distribute)

    @property
    def size(self) -> int:
        """How many processes there are."""
        shared = self.distribute is not False and _initialised()
        return distributed.get_world_size() if shared else 1

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""
        return distributed.get_rank() if self.size > 1 else 0

    def first(self, value: int, device: torch.device) -> int:
        """The value that process 0 has."""
        if self.size == 1:
            return value
        told = torch.tensor(value, dtype=torch.int64, device=device)
        distributed.broadcast(told, 0)
        return int(told)

    def begin(self, settings: Mapping[str, Any], step: int, tensors: Sequence[Tensor]) -> None:
        """Take up the numbers of process 0, before the first step of a run.

        Raises:
            FitError: the processes are not about to make the same fit.
        """
        if self.size == 1:
            return
        text = json.dumps([step, {**settings, "evaluation": ""}], sort_keys=True, default=str)
        mine = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        ends = torch.tensor([mine, -mine], device=tensors[0].device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        if int(ends[0]) != -int(ends[1]):
            raise FitError(
                "the processes of this fit differ in target, data, arguments or the step they go"
                " on from: call fit with the same ones in all of them"
            )
        with torch.no_grad():
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def evaluated(
        self, evaluate: Evaluate, ensemble: Ensemble, objective: Objective, batch: Any, beta: Tensor
    ) -> Found:
        """Evaluate a step, each process its share.

        Raises:
            FitError: another process raised in this step.
            ValueError: there are more processes than draws, rows or restarts.
        """
        if self.size == 1:
            return evaluate(ensemble, objective, batch, beta)
        n = objective.length(batch)
        rows, draws = self._share(ensemble.size, n)
        own, flat = _rows(ensemble, rows), ensemble.flat
        cut = _Share(objective, ensemble, rows, draws)
        own.flat.grad = None
        found = None
        try:
            found = evaluate(own, cut, objective.share(batch, rows, draws), beta[rows])
        finally:
            if found is None:  # the others must not wait for ever
                self._sum(flat.new_ones(1), flat.new_zeros(flat.numel() + 2 * ensemble.size * n))
        part = found.terms.shape[1] / n
        gradient = torch.zeros_like(flat)
        if own.flat.grad is not None:
            gradient[rows] = own.flat.grad * part
        terms = flat.new_zeros((2, ensemble.size, n))
        terms[0, rows, draws], terms[1, rows, draws] = found.terms, found.quantity
        whole = self._sum(flat.new_zeros(1), torch.cat([gradient.flatten(), terms.flatten()]))
        flat.grad = whole[: flat.numel()].reshape(flat.shape)
        loss, quantity = whole[flat.numel() :].reshape(terms.shape).to(found.terms.dtype)
        return Found(loss, quantity, self._groups(found.by_group, flat, rows, part))

    def values(self, evaluate: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """What a function finds at points z (n, d), each process at its share: (n).

        Raises:
            FitError: another process raised.
        """
        if self.size == 1:
            return evaluate(z)
        n = len(z)
        part = slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)
        whole, failed = z.new_zeros(n, dtype=torch.float64), z.new_ones(1)
        try:
            if part.start < part.stop:
                whole[part] = evaluate(z[part]).double()
            failed.zero_()
        finally:  # the others must not wait for ever
            whole = self._sum(failed, whole)
        return whole.to(z.dtype)

    def agreed(self, reason: str | None, device: torch.device) -> str | None:
        """The reason to stop of the first process that has one; all stop at the same step.

        Raises:
            FitError: another process called :meth:`raised` here.
        """
        if self.size == 1:
            return reason
        mine = 0 if reason is None else self.size - self.rank
        most = torch.tensor(mine, device=device)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        if not int(most):
            return None
        first = self.size - int(most)
        found = _told_by(first, reason or "", device)
        if found.startswith(RAISED) and first != self.rank:
            raise _raised(f"process {first} raised {found.removeprefix(RAISED)}")
        return found

    def raised(self, error: BaseException, device: torch.device) -> None:
        """Tell the others, who are at :meth:`agreed`, that this process leaves with an error."""
        if self.size > 1:
            with suppress(FitError):  # of another one that raised too
                self.agreed(f"{RAISED}{type(error).__name__}: {error}", device)

    @contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """For checks that may fail in one process alone: all go on, or none.

        Raises:
            FitError: the block raised in another process.
        """
        try:
            yield
        except STOPS as error:
            self.raised(error, device)
            raise
        self.agreed(None, device)

    def _share(self, restarts: int, n: int) -> tuple[slice, slice]:
        what = self.distribute or "draws"
        count = restarts if what == "restarts" else n
        if count < self.size:
            raise ValueError(
                f"{self.size} processes share {count} {WHAT[what]}, which are fewer: start as many"
                " processes at most"
            )
        part = slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)
        return (part, slice(None)) if what == "restarts" else (slice(None), part)

    def _sum(self, failed: Tensor, values: Tensor) -> Tensor:
        told = torch.cat([failed.to(values), values])
        distributed.all_reduce(told)
        if float(told[0]) > 0 and not float(failed):
            raise _raised("see what it says")
        return told[1:]

    def _groups(
        self, by_group: Tensor | None, flat: Tensor, rows: slice, part: float
    ) -> Tensor | None:
        """The gradients of groups of all draws; each process has as many groups."""
        if by_group is None:
            return None
        whole = flat.new_zeros((len(by_group), *flat.shape))
        whole[:, rows] = by_group * part
        distributed.all_reduce(whole)
        return whole


def _told_by(process: int, text: str, device: torch.device) -> str:
    """What one process says to all, which is its ``text``."""
    sent = text.encode()[:LONGEST].ljust(LONGEST)
    told = torch.tensor(list(sent), dtype=torch.uint8, device=device)
    distributed.broadcast(told, process)
    return bytes(told.tolist()).decode(errors="ignore").strip()


def _raised(what: str) -> FitError:
    error = FitError(f"another process of this fit raised: {what}")
    error.__cause__ = ProcessError(what)
    return error


class _Share(Objective):
    """An objective of which :meth:`draw` gives the share of one process."""

    quantity, advice = "", ""

    def __init__(self, objective: Objective, ensemble: Ensemble, rows: slice, draws: slice) -> None:
        self.whole, self.ensemble, self.rows, self.draws = objective, ensemble, rows, draws

    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> Any:
        batch = self.whole.draw(self.ensemble, step, generator)
        return self.whole.share(batch, self.rows, self.draws)

    def spare(self) -> Objective:
        return _Share(self.whole.spare(), self.ensemble, self.rows, self.draws)

    def tensors(self, batch: Any) -> tuple[Tensor, ...]:
        return self.whole.tensors(batch)

    def batch_of(self, tensors: Sequence[Tensor], like: Any) -> Any:
        return self.whole.batch_of(tensors, like)

    def length(self, batch: Any) -> int:
        return self.whole.length(batch)

    def share(self, batch: Any, restarts: slice, draws: slice) -> Any:
        return self.whole.share(batch, restarts, draws)

    def pieces(self, ensemble: Ensemble, batch: Any) -> Sequence[Any]:
        return self.whole.pieces(ensemble, batch)

    def __call__(self, ensemble: Ensemble, batch: Any, beta: Tensor) -> tuple[Tensor, Tensor]:
        return self.whole(ensemble, batch, beta)


def _rows(ensemble: Ensemble, rows: slice) -> Ensemble:
    """The guides of one process, with parameters that are a leaf of their own."""
    own = copy.copy(ensemble)
    own.flat = ensemble.flat.detach()[rows].clone().requires_grad_()
    own.fixed = {name: value[rows] for name, value in ensemble.fixed.items()}
    return own


def _initialised() -> bool:
    return distributed.is_available() and distributed.is_initialized()
