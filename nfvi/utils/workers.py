"""Jobs in processes of their own, by joblib: on this machine, or where its backend sends them."""

from __future__ import annotations

import os
import pickle
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import pyro
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.utils.process_wide import process_wide

__all__ = ["WorkerError", "in_processes", "jobs_for"]

NO_JOBLIB = "n_jobs over 1 needs joblib, the extra `jobs`: pip install 'nfvi[jobs]'"
UNSENDABLE = (
    "{name!r} cannot be sent to other processes ({reason}). What it holds must be picklable, as"
    " tensors, arrays and functions are, and locks, open files and connections are not; n_jobs=1"
    " needs none of this"
)
NOT_THERE = (
    "{name!r} cannot be read in another process ({reason}): the module that it comes from must be"
    " installed there too; n_jobs=1 needs none of this"
)
LOOK_EVERY = 0.5
"""Seconds between looks at whether the parent of a worker is still there."""


class WorkerError(RuntimeError):
    """A worker process ended in the middle of a job."""


@dataclass(frozen=True)
class _Setting:
    """What a worker takes over from the process that sends it jobs.

    Attributes:
        threads: how many torch uses.
        default_dtype: torch's.
        params: Pyro's parameter store.
        sender: that process: its machine, and its number there.
    """

    threads: int
    default_dtype: torch.dtype
    params: dict[str, Tensor]
    sender: tuple[str, int]


def jobs_for(n_jobs: int | None, jobs: int) -> int:
    """How many processes are to run so many jobs, at most one for each.

    Args:
        n_jobs: how many; -1 means one for each CPU, or all that the backend of an outer
            ``joblib.parallel_config`` has. ``None`` means what that says, else -1; and 1 where
            joblib is not installed.
        jobs: how many there are.

    Raises:
        ValueError: ``n_jobs`` is no whole number of at least 1, nor -1.
        ImportError: it is -1, and joblib is not installed.
    """
    if n_jobs is not None and n_jobs != -1:
        if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1:
            raise ValueError(
                f"n_jobs must be an integer of at least 1, or -1 for all CPUs, got {n_jobs!r}"
            )
        return min(n_jobs, jobs)
    try:
        from joblib import effective_n_jobs
    except ImportError as error:
        if n_jobs is None:
            return 1
        raise ImportError(NO_JOBLIB) from error
    configured = effective_n_jobs(n_jobs)
    if n_jobs is None and configured == 1:
        configured = effective_n_jobs(-1)
    return max(1, min(int(configured), jobs))


def in_processes(
    work: Callable[[Any, Any], Any],
    shared: Any,
    items: Sequence[Any],
    *,
    processes: int,
    threads: int,
    name: str,
    ordered: bool = True,
) -> Generator[Any, None, None]:
    """``work(shared, item)`` of each item, run by joblib in processes of their own.

    They are processes of this machine (loky), or those of the backend that an outer
    ``joblib.parallel_config`` names. Closing the generator, or Ctrl-C, ends them.

    Args:
        work: a function at the top of a module of nfvi.
        shared: what all jobs need; it is pickled once. A worker keeps it for its next job.
        items: one for each job.
        processes: how many run at a time.
        threads: of torch in each.
        name: what messages call what is sent.
        ordered: whether results come in the order of the items, or as they are ready.

    Raises:
        ImportError: joblib is not installed.
        TargetError: what is sent cannot be pickled, or not be read in a worker.
        WorkerError: a process was killed, or ran out of memory.
    """
    try:
        from joblib import delayed
        from joblib.externals.loky.process_executor import BrokenProcessPool
    except ImportError as error:
        raise ImportError(NO_JOBLIB) from error
    params = {key: value.detach() for key, value in pyro.get_param_store().items()}
    setting = _Setting(threads, torch.get_default_dtype(), params, _here())
    # Bytes: tensors that are sent as they are may move to memory that dies with a process, and
    # arrays may come as views that cannot be written to.
    sent = _pickled((work, shared, setting), name)
    jobs = (delayed(_job)(sent, _pickled(item, name), name) for item in items)
    results = _results(jobs, processes, ordered)
    try:
        for result in results:
            yield pickle.loads(result)  # noqa: S301 (from a process that this one started)
    except BrokenProcessPool as error:
        raise WorkerError(str(error)) from error
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*cancelled|.*but not used")  # as it was meant
            results.close()


def _results(jobs: Iterable[Any], processes: int, ordered: bool) -> Generator[bytes, None, None]:
    """What jobs of joblib return, as soon as the backend gives it.

    Backends that give nothing before all is done, Ray's and ``multiprocessing`` among them, are
    given one job for each process at a time, so that what is done is not lost to Ctrl-C.
    """
    from joblib import Parallel
    from joblib.parallel import get_active_backend

    how: dict[str, Any] = {"n_jobs": processes, "batch_size": 1, "max_nbytes": None}
    if get_active_backend()[0].supports_return_generator:
        results = Parallel(**how, return_as="generator" if ordered else "generator_unordered")(jobs)
        try:
            yield from results
        finally:
            results.close()
        return
    with Parallel(**how) as run:
        left = iter(jobs)
        while some := list(islice(left, processes)):
            yield from run(some)


def _pickled(value: Any, name: str) -> bytes:
    """By joblib's own pickle, which takes lambdas and what is typed into a notebook."""
    from joblib import wrap_non_picklable_objects

    try:
        return pickle.dumps(wrap_non_picklable_objects(value, keep_wrapper=False))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TargetError(UNSENDABLE.format(name=name, reason=error)) from error


@lru_cache(1)
def _read(sent: bytes) -> tuple[Callable[[Any, Any], Any], Any, _Setting]:
    return pickle.loads(sent)  # type: ignore[no-any-return]  # noqa: S301


def _job(sent: bytes, item: bytes, name: str) -> bytes:
    """One job, in a process that others may use later: all that is set here is put back."""
    # Some backends, Dask's among them, run several jobs in threads of one process.
    with process_wide():
        try:
            (work, shared, setting), own = _read(sent), pickle.loads(item)  # noqa: S301
        except (AttributeError, ImportError) as error:
            raise TargetError(NOT_THERE.format(name=name, reason=error)) from error
        _end_with_parent(setting.sender)
        with _set_up(setting), torch.inference_mode(False), torch.enable_grad():
            result = work(shared, own)
        # Plain bytes, for the reason above.
        return pickle.dumps(result)


@contextmanager
def _set_up(setting: _Setting) -> Iterator[None]:
    """Be like the process that sent the job for a while, with so many threads.

    Sums of many numbers depend on the threads in their last digits, and ``torch.tensor(1.0)`` in a
    model on the default dtype. SIGINT is left to the sender, which decides what Ctrl-C does.
    """
    if _here() == setting.sender:  # a thread of the sender, which is as it should be
        yield
        return
    before = torch.get_num_threads(), torch.get_default_dtype()
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    _set_torch(setting.threads, setting.default_dtype)
    store = pyro.get_param_store()
    try:
        with store.scope():
            for key, value in setting.params.items():
                store[key] = value
            yield
    finally:
        _set_torch(*before)
        if main:
            signal.signal(signal.SIGINT, handler)


def _set_torch(threads: int, default_dtype: torch.dtype) -> None:
    torch.set_num_threads(threads)
    torch.set_default_dtype(default_dtype)


def _here() -> tuple[str, int]:
    return platform.node(), os.getpid()


@lru_cache(None)
def _end_with_parent(sender: tuple[str, int]) -> None:
    """End this process when the one that started it is gone, if that is the sender of its jobs."""
    if (platform.node(), os.getppid()) == sender:
        threading.Thread(target=_watch, args=(sender[1],), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    os._exit(1)
