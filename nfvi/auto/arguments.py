"""What a climb is told: what is climbed, with what, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nfvi.auto.budget import Budget
from nfvi.targets import Target
from nfvi.training import CallbackLike, Compile, Crew

__all__ = ["ClimbArguments"]


@dataclass(frozen=True, eq=False)
class ClimbArguments:
    """What is climbed, with what, and how far.

    Attributes:
        target: log p.
        seed: fixes everything but what a budget in seconds cuts off.
        dtype: of the guides.
        device: of the guides.
        budget: when to stop.
        callbacks: called after every optimiser step of every rung.
        settings: what a fit keeps of its target and dtype.
        compile: as for :meth:`nfvi.NFVI.fit`.
        bar: whether to show one of the whole climb.
        crew: the processes that share the climb, led by this one; default this one alone.
    """

    target: Target
    seed: int
    dtype: torch.dtype
    device: torch.device | str | None = None
    budget: Budget = field(default_factory=Budget)
    callbacks: Sequence[CallbackLike] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    compile: Compile = "trace"
    bar: bool = False
    crew: Crew | None = None
