"""Draws of a posterior on unconstrained space: of a fit, or of a user's own class."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Posterior", "fresh_draws", "label_of"]


class Posterior(Protocol):
    """What can be compared: a ``Fit``, an ``MCMCRun``, or anything else with draws of a target.

    A ``guide`` with ``device`` and ``sample(n, generator=)``, if there is one, gives the draws on
    unconstrained space; otherwise ``sample`` must return them as a tensor. ``wall_time`` (seconds),
    ``ess`` (effective draws bought by it) and ``formula`` (the name in tables) are read where
    present.
    """

    @property
    def target(self) -> Any:
        """What the draws are of."""

    def sample(self, n: int, *, seed: int | None = None) -> Tensor | dict[str, Tensor]:
        """n draws, (n, d) or by site."""


def label_of(posterior: Any) -> str:
    """The name of a posterior in tables and pictures: its formula, or else its class."""
    return str(getattr(posterior, "formula", type(posterior).__name__))


def fresh_draws(posterior: Any, n: int, seed: int) -> Tensor:
    """n draws (n, d) on unconstrained space, the same for each seed.

    Raises:
        TypeError: posterior is not one that can be compared.
        ValueError: it has no target, or its draws are not (n, d).
    """
    if not hasattr(posterior, "sample"):
        raise TypeError(
            f"compare takes fits and MCMC runs; got {type(posterior).__name__}, without sample()"
        )
    target: Any = getattr(posterior, "target", None)
    if not hasattr(target, "constrain"):
        raise ValueError(
            "a fit without a target cannot be compared; load it by Fit.load(path, target=...)"
        )
    draws = _sampled(posterior, n, seed)
    if tuple(draws.shape) != (n, target.dim):
        raise ValueError(f"expected draws ({n}, {target.dim}), got {tuple(draws.shape)}")
    return draws.detach()


def _sampled(posterior: Any, n: int, seed: int) -> Tensor:
    guide = getattr(posterior, "guide", None)
    with torch.no_grad():
        if guide is None:
            draws = posterior.sample(n, seed=seed)
        else:
            generator = torch.Generator(device=guide.device).manual_seed(seed)
            draws = guide.sample(n, generator=generator)
    if not isinstance(draws, Tensor):
        raise TypeError(
            f"{type(posterior).__name__}.sample() gives sites and there is no guide; compare needs "
            "draws on unconstrained space"
        )
    return draws
