"""Chains side by side, each in a process of its own, with the draws of chains in a row."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.mcmc.chain import Chain, run_chain
from nfvi.mcmc.potential import Potential
from nfvi.targets import Target
from nfvi.utils import set_up_worker

__all__ = ["chains_in_processes", "processes_for"]

NO_JOBLIB = "n_jobs over 1 needs joblib, the extra `jobs`: pip install 'nfvi[jobs]'"
UNSENDABLE = (
    "{name!r} cannot be sent to other processes ({reason}). What it holds must be picklable, as"
    " tensors, arrays and functions are, and locks, open files and connections are not; n_jobs=1"
    " needs none of this"
)


def processes_for(n_jobs: int, chains: int) -> int:
    """How many processes are run: no more than chains, and -1 means as many as there are CPUs.

    Raises:
        ValueError: ``n_jobs`` is no whole number of at least 1, nor -1.
    """
    if n_jobs != -1:
        if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1:
            raise ValueError(
                f"n_jobs must be an integer of at least 1, or -1 for all CPUs, got {n_jobs!r}"
            )
        return min(n_jobs, chains)
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(there or 1, chains)


def chains_in_processes(
    make: Any,
    target: Target,
    starts: Tensor,
    seeds: list[int],
    *,
    draws: int,
    warmup: int,
    processes: int,
) -> Iterator[Chain]:
    """The chains in their order; Ctrl-C ends the processes and is raised again.

    Args:
        make: gives a Pyro kernel on a potential.
        target: the log-density.
        starts: a point for each chain (chains, d).
        seeds: one for each.
        draws: of each chain.
        warmup: of each chain.
        processes: how many run at a time.

    Raises:
        ImportError: joblib is not installed.
        TargetError: the target cannot be pickled.
    """
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        raise ImportError(NO_JOBLIB) from error
    params = {name: value.detach() for name, value in pyro.get_param_store().items()}
    settings = (torch.get_num_threads(), torch.get_default_dtype())
    work = delayed(_work)
    tasks = [
        work(make, target, params, settings, draws, warmup, start.clone(), seed)
        for start, seed in zip(starts, seeds, strict=True)
    ]
    run = Parallel(n_jobs=processes, backend="loky", return_as="generator", max_nbytes=None)
    try:
        for chain in run(tasks):
            yield pickle.loads(chain)  # noqa: S301 (from a process that this one started)
    except pickle.PicklingError as error:
        # The cause is the traceback of another thread as text, with the error in its last line.
        reason = str(error.__cause__ or error).strip('\n" ').splitlines()[-1]
        raise TargetError(UNSENDABLE.format(name=target.name, reason=reason)) from error


def _work(
    make: Any,
    target: Target,
    params: dict[str, Tensor],
    settings: tuple[int, torch.dtype],
    draws: int,
    warmup: int,
    start: Tensor,
    seed: int,
) -> bytes:
    """One chain, in a process that others may use later: all that is set here is put back."""
    before = set_up_worker(*settings)
    # The process that started this one decides what Ctrl-C does.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        store = pyro.get_param_store()
        with store.scope(), torch.inference_mode(False), torch.enable_grad():
            for name, value in params.items():
                store[name] = value
            chain = run_chain(
                make,
                Potential(target),
                start,
                draws=draws,
                warmup=warmup,
                seed=seed,
                on_draw=_quiet,
            )
        # Tensors that are sent as they are may move to memory that dies with this process.
        return pickle.dumps(chain)
    finally:
        set_up_worker(*before)
        signal.signal(signal.SIGINT, handler)


def _quiet(stage: str) -> None:
    """No bar in a process that has no terminal."""
