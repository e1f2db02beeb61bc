"""Chains side by side, each in a process of its own, with the draws of chains in a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfvi.mcmc.chain import Chain, run_chain
from nfvi.mcmc.potential import Potential
from nfvi.targets import Target
from nfvi.utils import in_processes

__all__ = ["chains_in_processes"]


class _Plan(NamedTuple):
    """What all chains share."""

    make: Any
    target: Target
    draws: int
    warmup: int


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
    return in_processes(
        _chain,
        _Plan(make, target, draws, warmup),
        [(start.clone(), seed) for start, seed in zip(starts, seeds, strict=True)],
        processes=processes,
        threads=torch.get_num_threads(),
        name=target.name,
    )


def _chain(plan: _Plan, item: tuple[Tensor, int]) -> Chain:
    start, seed = item
    return run_chain(
        plan.make,
        Potential(plan.target),
        start,
        draws=plan.draws,
        warmup=plan.warmup,
        seed=seed,
        on_draw=_quiet,
    )


def _quiet(stage: str) -> None:
    """No bar in a process that has no terminal."""
