"""The simulations of a calibration, one after the other or in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

import pyro

from nfvi.assess.calibration_task import Outcome, Task
from nfvi.errors import FitError, TargetError
from nfvi.targets import PyroTarget
from nfvi.training import catch_interrupt
from nfvi.utils import set_up_worker

__all__ = ["outcomes", "processes_for"]

UNSENDABLE = (
    "the model cannot be sent to other processes ({reason}): lambdas, functions inside functions"
    " and models typed into a notebook cannot. Define it at the top of a module, or pass"
    " processes=1"
)
BROKEN = (
    "a worker process died before its first simulation. In a script, call calibrate() under"
    " `if __name__ == '__main__':`, since each process imports the script; processes=1 needs none"
)


def processes_for(task: Task, wanted: int | None, simulations: int) -> int:
    """How many processes to run: as asked for, or as many as there are CPUs where they can be.

    Raises:
        TargetError: more than one was asked for, and the model cannot be sent to them.
    """
    if wanted == 1 or simulations == 1:
        return 1
    reason = _unsendable(task)
    if wanted is not None and reason:
        raise TargetError(UNSENDABLE.format(reason=reason))
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if reason else min(wanted or there or 1, simulations)


def _unsendable(task: Task) -> str:
    """Why a task cannot be sent to another process; nothing if it can."""
    try:
        sent = pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return str(error)
    if b"__main__" in sent and not hasattr(sys.modules["__main__"], "__file__"):
        return "it was defined interactively"
    return ""


def outcomes(
    task: Task, target: PyroTarget, simulations: int, processes: int
) -> Generator[Outcome, None, None]:
    """The outcomes as they come; fewer after Ctrl-C.

    Raises:
        TargetError: another process cannot find the model.
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
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    # Tensors that are sent as they are would move to shared memory here.
    sent = pickle.dumps(task)
    pool = ProcessPoolExecutor(processes, context, _start, (sent, stop))
    waiting: dict[Future[Outcome | None], int] = {}
    done = 0
    try:
        with catch_interrupt() as interruption:
            waiting = {pool.submit(_work, index): index for index in range(simulations)}
            while waiting:
                ready, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                if interruption.requested:
                    stop.set()
                    waiting = {f: i for f, i in waiting.items() if not f.cancel()}
                for future in ready & waiting.keys():
                    index = waiting.pop(future)
                    outcome = _outcome(future, index, done > 0 or interruption.requested)
                    if outcome is not None and not (interruption.requested and outcome.failure):
                        done += 1
                        yield outcome
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[Outcome | None], index: int, started: bool) -> Outcome | None:
    """What a worker found; a failure if it died on the way."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        if not started:
            raise FitError(BROKEN) from error
        return Outcome(index, {}, {}, failure="its process died")


_state: dict[str, Any] = {}
"""Of a worker process: what it was sent, and the event that ends its fit."""


def _start(sent: bytes, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _state.update(sent=sent, stop=stop)


def _end_with_parent() -> None:
    """End this process when its parent is gone: nobody waits for the outcome any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(index: int) -> Outcome | None:
    if "task" not in _state:
        try:
            task = pickle.loads(_state["sent"])  # noqa: S301 (from the process that started this)
        except (AttributeError, ImportError) as error:
            raise TargetError(UNSENDABLE.format(reason=error)) from error
        set_up_worker(1, task.default_dtype)
        for name, value in task.params.items():
            pyro.get_param_store()[name] = value
        _state.update(task=task, target=task.target())
    outcome: Outcome | None = _state["task"].run(_state["target"], index, _state["stop"].is_set)
    return outcome
