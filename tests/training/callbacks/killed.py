"""Fits with a Checkpoint, made in processes that are killed; and what they should have become."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nfvi import NFVI, Checkpoint, DensityFit, Fit, Tracker

__all__ = ["FITS", "run", "state_of"]


def target(z: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(
        -0.5 * (z[..., 0] - z[..., 1] ** 2) ** 2 - 0.5 * z[..., 1] ** 2,
        -2.0 * (z - 4).square().sum(-1),
    )


def rows() -> torch.Tensor:
    x = torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2], 1)


def of_target(formula: str, **options: Any) -> Callable[[NFVI | None, list[Any]], Fit]:
    """A fit from its start, or on from a checkpoint."""

    def made(resumed: NFVI | None, callbacks: list[Any]) -> Fit:
        if resumed is not None:
            return resumed.fit(target, dim=2, callbacks=callbacks)
        settings = {"dim": 2, "n_mc": 16, "steps": 150, "restarts": 2, **options}
        return NFVI(formula, seed=5).fit(target, callbacks=callbacks, **settings)

    return made


def of_data(resumed: NFVI | None, callbacks: list[Any]) -> DensityFit:
    if resumed is not None:
        return resumed.fit_data(rows(), callbacks=callbacks)
    return NFVI("maf(hidden=[8])-perm-maf(hidden=[8])", seed=5).fit_data(
        rows(), epochs=40, batch_size=32, callbacks=callbacks
    )


FITS: dict[str, Callable[[NFVI | None, list[Any]], Fit | DensityFit]] = {
    "plain": of_target("planar*3"),
    "data": of_data,
    "adaptive": of_target("planar*2", anneal="adaptive"),
    "qmc": of_target("planar*2-loc", draws="qmc"),
    "mixture": of_target("scale-loc", combine="mixture", restarts=4, lr=0.1),
    "pruned": of_target("planar*2", steps=450, n_mc="auto", prune=True, restarts=4),
}
"""Kinds of fits; the last has more draws and fewer restarts on the way."""


def tracker() -> Tracker:
    return Tracker(every=7, loss=lambda state: state.loss)


def run(kind: str, file: str, every: int) -> None:
    """Make a fit that says each step, slowly enough to be killed anywhere."""
    torch.set_num_threads(1)
    said = Path(file).with_suffix(".step")

    def tell(state: Any) -> None:
        said.write_text(str(state.step))
        time.sleep(0.002)

    FITS[kind](None, [tracker(), tell, Checkpoint(file, every=every)])


def state_of(kind: str, resumed: NFVI | None) -> dict[str, Any]:
    """Everything that a fit came to: numbers as bytes, since NaN stands in histories too."""
    seen = tracker()
    fit = FITS[kind](resumed, [seen])
    tensors = {**fit.guide.state_dict(), **fit.history.state_dict(), "tracked": seen["loss"]}
    found: dict[str, Any] = {name: value.numpy().tobytes() for name, value in tensors.items()}
    found["stopped"], found["steps"] = fit.stopped, fit.steps
    if isinstance(fit, Fit):
        return found | {"restarts": repr(fit.restarts), "gradients": fit.gradient_evaluations}
    return found | {"quality": repr(fit.quality), "looks": repr(fit.validation)}
