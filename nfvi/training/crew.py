"""Work that one process leads and others help with: batches of a target, and runs of a trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from nfvi.errors import FitError, TargetError
from nfvi.guides import Guide
from nfvi.targets import (
    Target,
    alone,
    evaluated_by,
    graphs,
    log_prob_and_score,
    log_prob_anywhere,
)
from nfvi.training.interrupt import Interruption, hold_interrupt, interrupt_once, raise_once
from nfvi.training.loop import Trainer
from nfvi.training.optimizers import OptimizerSpec
from nfvi.training.ranks import STOPS, ProcessError, Ranks
from nfvi.training.setup import Plan, build_trainer
from nfvi.training.state import CallbackLike
from nfvi.training.wire import DTYPES, Lost, Order, Wire
from nfvi.utils import place_of

__all__ = ["Crew"]

T = TypeVar("T")

EVALUATE, TRAIN, DONE, RAISED = range(4)
GOOD, STOP, BAD = range(3)
LOOK_AGAIN = 64
"""Batches that process 0 evaluates alone before it sees again how fast the others answer."""
LONGEST_SILENCE = 60.0
"""Seconds: processes that wait for word give up after ten minutes, by nccl."""


class Pays:
    """Whether to ask other processes for their shares of batches of about one size.

    Args:
        others: how many there are.
    """

    def __init__(self, others: int) -> None:
        self.others = others
        self.own = self.waited = -1.0
        self._batches, self._asked, self._recent = 0, time.monotonic(), 0.0

    def ask(self) -> bool:
        """Whether the next batch goes to all; every 64th does, to see how long that takes."""
        self._batches += 1
        cheap = 0 <= self.others * self.own < self.waited
        recent = time.monotonic() - self._asked < LONGEST_SILENCE
        if cheap and recent and self._batches < LOOK_AGAIN:
            return False
        self._batches, self._asked = 0, time.monotonic()
        return True

    def evaluated(self, seconds: float) -> None:
        """A share took so long here."""
        self._recent = seconds
        self.own = seconds if self.own < 0 else 0.8 * self.own + 0.2 * seconds

    def answered(self, seconds: float) -> None:
        """A batch took so long, of which the share of this process is the last one."""
        waited = max(seconds - self._recent, 0.0)
        self.waited = waited if self.waited < 0 else 0.5 * (self.waited + waited)


class Crew:
    """The processes of a group at work that process 0 leads; of one process, that one.

    Process 0 does the work, and decides. Where it asks for the target at some points, each process
    evaluates its share of them. Runs of a trainer are shared step by step. In the end all have what
    process 0 found, to the last bit.

    Args:
        ranks: the processes.
        target: log p, which all of them have.
        device: of points and guides.
        traced: whether values and gradients of the target may come from graphs.
        seconds: of the whole, of which a graph must not take much; ``None`` for no limit.

    Attributes:
        trainers: those that have run, in order; each process has its own.
    """

    def __init__(
        self,
        ranks: Ranks,
        target: Target,
        device: torch.device,
        traced: bool = True,
        seconds: float | None = None,
    ) -> None:
        self.ranks, self.target, self.device = ranks, target, device
        self.traced, self.seconds = traced, seconds
        self.trainers: list[Trainer] = []
        self.wire = Wire(device)
        self._pays: dict[int, Pays] = {}

    def share(self, work: Callable[[], T], callbacks: Sequence[CallbackLike] = ()) -> T:
        """What ``work`` returns in process 0; all processes call this at the same time.

        Args:
            work: done by process 0. What it returns is sent by pickle.
            callbacks: of the runs of trainers, in other processes than the first.

        Raises:
            FitError: another process raised or was lost.
        """
        if self.ranks.size == 1:
            return work()
        try:
            return self._lead(work) if self.ranks.rank == 0 else self._follow(callbacks)
        except Lost as error:
            raise FitError(
                "a process of this fit has ended, or cannot be reached any more; the others cannot"
                " go on without it"
            ) from error.__cause__

    @contextmanager
    def training(
        self,
        guides: Sequence[Guide],
        plan: Plan,
        settings: dict[str, Any],
        optimizer: OptimizerSpec = None,
    ) -> Iterator[Trainer]:
        """A trainer that all processes run, for process 0, which runs it within.

        Args:
            guides: one a restart.
            plan: of the run.
            settings: as for :func:`~nfvi.training.setup.build_trainer`.
            optimizer: likewise.
        """
        if self.ranks.size == 1:
            yield self._trainer(guides, plan, settings, optimizer)
            return
        sent = self.wire.packed((list(guides), plan, settings, optimizer))
        with hold_interrupt(), alone():
            trainer = self._trainer(guides, plan, settings, optimizer)
            self.wire.send(TRAIN, sent)
            trainer.ranks = self.ranks
            try:
                yield trainer
            finally:
                trainer.ranks = Ranks()

    def _trainer(
        self,
        guides: Sequence[Guide],
        plan: Plan,
        settings: dict[str, Any],
        optimizer: OptimizerSpec,
    ) -> Trainer:
        rest = iter(guides)
        trainer = build_trainer(lambda _: next(rest), self.target, plan, optimizer, settings)
        self.trainers.append(trainer)
        return trainer

    def _lead(self, work: Callable[[], T]) -> T:
        with interrupt_once(), evaluated_by(self.target, self._asked):
            try:
                found = work()
                sent = self.wire.packed(found)
            except STOPS as error:
                kind = next((k for k in (TargetError, FitError) if isinstance(error, k)), None)
                guide = None if kind is None else getattr(error, "guide", None)
                text = str(error) if kind is not None else f"{type(error).__name__}: {error}"
                stopped = isinstance(error, KeyboardInterrupt)
                with hold_interrupt(), suppress(Lost):
                    self.wire.send(RAISED, self.wire.packed((kind, text, guide, stopped)))
                raise
        with hold_interrupt():
            self.wire.send(DONE, sent)
        return found

    def _follow(self, callbacks: Sequence[CallbackLike]) -> Any:
        """Do what process 0 says, until it is through."""
        raised: BaseException | None = None
        # Ctrl-C here is told to process 0, which decides what comes of it.
        with (
            graphs(self.traced, self.seconds),
            suppress(KeyboardInterrupt),
            hold_interrupt() as pressed,
        ):
            while True:
                order = self.wire.heard()
                if order.what in (DONE, RAISED):
                    break
                if order.what == EVALUATE:
                    raised = self._evaluated(order, pressed) or raised
                elif order.what == TRAIN:
                    raised = self._trained(self.wire.received(order.length), callbacks) or raised
            received = self.wire.received(order.length)
        if order.what == DONE:
            return received
        kind, text, guide, stopped = received
        if stopped:
            raise KeyboardInterrupt
        if kind is None:
            raise FitError(f"process 0 of this fit raised {text}") from raised
        raise kind(text, guide) from (raised or ProcessError("process 0 raised"))

    def _trained(
        self,
        sent: tuple[list[Guide], Plan, dict[str, Any], OptimizerSpec],
        callbacks: Sequence[CallbackLike],
    ) -> BaseException | None:
        """Run a trainer with the others; what was raised here."""
        trainer = self._trainer(*sent)
        trainer.ranks = self.ranks
        try:
            trainer.run(callbacks)
        except FitError as error:  # which process 0 has too, unless something else is behind it
            return None if isinstance(error.__cause__, ProcessError) else error.__cause__
        except STOPS as error:
            return error.__cause__ or error
        finally:
            trainer.ranks = Ranks()
        return None

    def _asked(self, z: Tensor, score: bool) -> tuple[Tensor, ...]:
        """The target at points (n, d), for process 0.

        It is evaluated share by share, so that the numbers are the same whoever does it. Where
        shares take less time than the others take to answer, process 0 does all of them.
        """
        parts = self._parts(len(z))
        pays = self._pays.setdefault(len(z).bit_length(), Pays(self.ranks.size - 1))
        if pays.ask():
            values = self._from_all(z, score, parts, pays)
        else:
            values = [self._timed(z[part], score, pays) for part in parts]
        found = torch.cat(values)
        return (found[:, 0], found[:, 1:]) if score else (found[:, 0],)

    def _from_all(self, z: Tensor, score: bool, parts: Sequence[slice], pays: Pays) -> list[Tensor]:
        started = time.perf_counter()
        values: list[Tensor] = []
        words, raised, stop = "", None, False
        with hold_interrupt():
            self.wire.tell(Order(EVALUATE, len(z), DTYPES.index(z.dtype), int(score)))
            self.wire.send_points(z)
            try:
                values.append(self._timed(z[parts[0]], score, pays))
            except STOPS as error:
                raised = error
            for k, part in enumerate(parts[1:], 1):
                shape = part.stop - part.start, 1 + z.shape[1] * score
                told = self.wire.values(k, (1 + shape[0] * shape[1],), z.dtype)
                if int(told[0]) == BAD:
                    words = words or f"process {k} raised {self.wire.words(k)}"
                stop = stop or int(told[0]) == STOP
                values.append(told[1:].reshape(shape))
        pays.answered(time.perf_counter() - started)
        if raised is not None:
            raise raised
        if words:
            raise ProcessError(words)
        if stop:
            raise_once()
        return values

    def _evaluated(self, order: Order, pressed: Interruption) -> BaseException | None:
        """Evaluate a share of some points for process 0; what was raised here."""
        z = self.wire.points(order.length, self.target.dim, order.dtype)
        part, score = self._parts(order.length)[self.ranks.rank], bool(order.score)
        told = z.new_zeros(1 + (part.stop - part.start) * (1 + z.shape[1] * score))
        raised = None
        try:
            told[1:] = self._own(z[part], score).flatten()
        except STOPS as error:
            raised = error
        told[0] = BAD if raised is not None else STOP if pressed.requested else GOOD
        self.wire.send_values(told)
        if raised is not None:
            self.wire.send_words(f"{type(raised).__name__}: {raised}{place_of(raised)}")
        else:
            pressed.requested = False  # process 0 knows
        return raised

    def _parts(self, n: int) -> list[slice]:
        size = self.ranks.size
        ends = [-(-k * n // size) for k in range(size + 1)]  # a single point is for process 0
        return [slice(*pair) for pair in pairwise(ends)]

    def _timed(self, z: Tensor, score: bool, pays: Pays) -> Tensor:
        started = time.perf_counter()
        found = self._own(z, score)
        pays.evaluated(time.perf_counter() - started)
        return found

    def _own(self, z: Tensor, score: bool) -> Tensor:
        """Values and gradients (n, 1 + d) by this process."""
        if not len(z):
            return z.new_zeros(0, 1 + z.shape[1] * score)
        with alone():
            if score:
                log_p, gradient = log_prob_and_score(self.target, z)
                return torch.cat([log_p.unsqueeze(1), gradient], 1)
            with torch.no_grad():
                return log_prob_anywhere(self.target, z).unsqueeze(1)
