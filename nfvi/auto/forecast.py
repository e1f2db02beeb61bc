"""What the first line of a climb says: how long an evaluation takes, and what to expect."""

from __future__ import annotations

import time

import torch

from nfvi.auto.failure import carries_best
from nfvi.auto.record import GRADIENT, Record
from nfvi.auto.rungs import learned_rungs
from nfvi.targets import log_prob_anywhere
from nfvi.utils import short, wrapped

__all__ = ["forecast"]

FEW, MANY = 16, 256
"""Points of an evaluation: first a few, and as many as a step has if that was quick."""
QUICK = 0.02
GAUSSIAN_BATCHES = 200
"""In docs/auto.md and docs/posteriors.md it is 80 to 190 of them, and some for the modes."""


@carries_best
def forecast(record: Record, dtype: torch.dtype, device: torch.device) -> str:
    """Time the target, and say what a climb on it takes.

    Args:
        record: of the climb.
        dtype: in which the target is evaluated.
        device: of the guides.
    """
    seconds = _evaluation(record, dtype, device)
    learned = sum(rung.steps * rung.n_mc for rung in learned_rungs(record.target.dim)) / MANY
    gaussians, flows = (GRADIENT * seconds * n for n in (GAUSSIAN_BATCHES, learned))
    end = record.budget.seconds
    text = (
        f"{record.target.name}: one evaluation at {MANY} points takes {in_words(seconds)}."
        f" With gradients these take some {in_words(gaussians)} for Gaussians, and up to"
        f" {in_words(flows)} for learned flows, if they are needed, which take time of their own."
        + ("" if end is None else f" The budget of {end:g} s ends it.")
    )
    return "\n".join(wrapped(text)).strip()


@torch.no_grad()
def _evaluation(record: Record, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds for a batch; of a slow target, by a few points."""
    generator = torch.Generator(device).manual_seed(record.seed)

    def timed(n: int) -> float:
        shape = n, record.target.dim
        z = 0.1 * torch.randn(shape, generator=generator, dtype=dtype, device=device)
        started = time.perf_counter()
        log_prob_anywhere(record.target, z).sum().item()
        return time.perf_counter() - started

    timed(FEW)  # the first call may check or prepare
    seconds = timed(FEW)
    return timed(MANY) if seconds < QUICK else seconds * MANY / FEW


def in_words(seconds: float) -> str:
    """A time in about two digits, with the unit that fits."""
    if seconds < 0.1:
        return f"{short(1000 * seconds, 2)} ms"
    if seconds < 100:
        return f"{short(seconds, 2)} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:,.0f} h"
