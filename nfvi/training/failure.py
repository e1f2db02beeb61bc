"""The error of a fit in which no restart is left, with the place where it broke."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.training.ensemble import Ensemble
from nfvi.training.guard import PATIENCE
from nfvi.training.loop_state import LoopState

__all__ = ["failure"]


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


def _where(bad: list[str], ensemble: Ensemble) -> str:
    if not bad:
        return "the gradient of every parameter is finite"
    layers = list(ensemble.template.formula)
    index = int(bad[0].rsplit("_", 1)[1])
    return f"first in flow {index}, {layers[index]}, parameter {bad[0]}"
