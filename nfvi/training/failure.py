"""The errors of a running fit, with the place where it broke and the last good guide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nfvi.errors import FitError, TargetError
from nfvi.guides import Guide
from nfvi.training.ensemble import Ensemble
from nfvi.training.guard import PATIENCE
from nfvi.training.loop_state import LoopState
from nfvi.utils import place_of

__all__ = ["failure", "late_errors"]

RECENT = 50
"""Steps over which the ELBOs of restarts are averaged to tell the best."""


def failure(loop: LoopState, loss: Tensor, gradient: Tensor) -> FitError:
    """The error for a step with this loss (R) and raw gradient (R, P), with the last good guide."""
    ensemble, guard = loop.ensemble, loop.guard
    named = ensemble.named(gradient)
    bad = [name for name, value in named.items() if not bool(value.isfinite().all())]
    best = int(guard.skipped.argmin())
    with torch.no_grad():
        ensemble.flat.copy_(loop.last_good)
    guide = ensemble.guide(best) if bool(guard.weight[best] > 0) else None
    left = "The last good guide is error.guide" if guide else "From the first, no step was good"
    return FitError(
        f"every restart was dropped at step {loop.step}: its loss or gradient was not finite"
        f" {PATIENCE} times in a row ({_where(bad, ensemble)}; losses"
        f" {[round(v, 3) for v in loss.tolist()]}). {loop.objective.advice} {left}",
        guide,
    )


@contextmanager
def late_errors(loop: LoopState) -> Iterator[None]:
    """For a part of a running fit: what it raises comes out with the last good guide.

    Raises:
        TargetError: the block raised one; it is the ``__cause__``.
        FitError: the block raised anything else but this, likewise.
    """
    try:
        yield
    except FitError:
        raise
    except TargetError as error:
        guide = _last_good(loop)
        raise TargetError(f"{error} ({_when(loop)}; {_left(guide)})", guide) from error
    except Exception as error:
        guide = _last_good(loop)
        raise FitError(
            f"{type(error).__name__} {_when(loop)}: {error}{place_of(error)} ({_left(guide)})."
            " Fix what raised it, the target most likely, and fit again; from the file of a"
            " Checkpoint, NFVI.resume(path) continues where it was",
            guide,
        ) from error


def _when(loop: LoopState) -> str:
    done = loop.step >= loop.last or loop.stopped is not None
    return f"after step {loop.step:,}, the last" if done else f"in step {loop.step + 1:,}"


def _left(guide: Guide | None) -> str:
    return "no step was done before" if guide is None else "the last good guide is error.guide"


@torch.no_grad()
def _last_good(loop: LoopState) -> Guide | None:
    """The restart with the best mean over the last steps, before what broke; if any step was."""
    if not bool((loop.guard.weight > 0).any()):
        return None
    recent = loop.history.last(loop.history.quantity, RECENT)[:, list(loop.rows)]
    score = recent.double().mean(0).nan_to_num(-math.inf, -math.inf, -math.inf)
    score = torch.where(loop.guard.weight > 0, score.to(loop.guard.weight.device), -math.inf)
    flat = loop.ensemble.flat
    now = flat.detach().clone()
    flat.copy_(loop.last_good)
    guide = loop.ensemble.guide(int(score.argmax()))
    flat.copy_(now)
    return guide


def _where(bad: list[str], ensemble: Ensemble) -> str:
    if not bad:
        return "the gradient of every parameter is finite"
    layers = list(ensemble.template.formula)
    index = int(bad[0].rsplit("_", 1)[1])
    return f"first in flow {index}, {layers[index]}, parameter {bad[0]}"
