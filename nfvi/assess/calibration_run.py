"""The simulations of a calibration, one after the other or in processes of their own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType

from nfvi.assess.calibration_task import Outcome, Task
from nfvi.errors import FitError
from nfvi.targets import PyroTarget
from nfvi.training import catch_interrupt
from nfvi.utils import WorkerError, in_processes

__all__ = ["outcomes"]

DIED = (
    "a worker process died before its first simulation, killed or out of memory ({reason});"
    " n_jobs=1 needs none"
)
THREADS = 1


def outcomes(
    task: Task, target: PyroTarget, simulations: int, processes: int
) -> Generator[Outcome, None, None]:
    """The outcomes as they come; fewer after Ctrl-C.

    Raises:
        ImportError: more than one process, and joblib is not installed.
        TargetError: the model cannot be sent to other processes.
        FitError: the processes died before anything was done.
    """
    if processes > 1:
        yield from _in_processes(task, simulations, processes)
        return
    with catch_interrupt() as interruption:
        for index in range(simulations):
            outcome = None if interruption.requested else task.run(target, index)
            if outcome is None:
                return
            yield outcome


def _in_processes(task: Task, simulations: int, processes: int) -> Generator[Outcome, None, None]:
    left = set(range(simulations))
    coming = in_processes(
        _work,
        task,
        range(simulations),
        processes=processes,
        threads=THREADS,
        name=task.name,
        ordered=False,
    )
    with _caught() as interrupts:
        try:
            while not interrupts.requested:
                with interrupts.waiting():
                    outcome: Outcome = next(coming)
                left.discard(outcome.index)
                yield outcome
        except (StopIteration, KeyboardInterrupt):
            return
        except WorkerError as error:
            if len(left) == simulations:
                raise FitError(DIED.format(reason=error)) from error
            yield from (Outcome(k, {}, {}, failure="its process died") for k in sorted(left))
        finally:
            coming.close()


def _work(task: Task, index: int) -> Outcome | None:
    return task.run(task.target, index)


class _Interrupts:
    """Ctrl-C ends a wait at once, and is otherwise remembered, so that no outcome is lost."""

    def __init__(self) -> None:
        self.requested = self._waits = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A wait that Ctrl-C ends."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT."""
        again, self.requested = self.requested, True
        if self._waits or again:
            raise KeyboardInterrupt


@contextmanager
def _caught() -> Iterator[_Interrupts]:
    """Catch SIGINT where :func:`~nfvi.training.catch_interrupt` would."""
    found, previous = _Interrupts(), signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or previous in (signal.SIG_IGN, None):
        yield found
        return
    signal.signal(signal.SIGINT, found)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, previous)
