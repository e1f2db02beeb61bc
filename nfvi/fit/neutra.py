"""NUTS in the base space of a fitted guide, where the target is close to the base distribution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.guides import AnyGuide, Guide, MixtureGuide
from nfvi.mcmc import MCMCRun, nuts
from nfvi.targets import Target, log_prob_of

__all__ = ["BaseSpace", "nuts_in_base_space", "single_flow"]


class BaseSpace(Target):
    """A target seen through a guide x = f(z): log p(f(z)) + log|det df/dz|.

    Where the guide is the target, this is the base distribution, whatever the shape of the target.

    Args:
        guide: f; its parameters are held fixed.
        target: p.

    Reference:
        Hoffman, Sountsov, Dillon, Langmore, Tran and Vasudevan, NeuTra-lizing bad geometry in
        Hamiltonian Monte Carlo using neural transport, 2019.
    """

    def __init__(self, guide: Guide, target: Target) -> None:
        self.guide, self.target = guide, target
        self.dim, self.batching = target.dim, target.batching
        self.differentiable_once = target.differentiable_once
        self.name, self.named = f"{target.name} through {guide.formula}", target.named
        self.log_normalizer = target.log_normalizer

    def log_prob(self, z: Tensor) -> Tensor:
        x, ladj = self.guide.transform(z)
        return log_prob_of(self.target, x) + ladj

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return self.target.constrain(self.guide.transform(z)[0])

    @torch.no_grad()
    def to_target(self, z: Tensor) -> Tensor:
        """x = f(z)."""
        return self.guide.transform(z)[0]


def nuts_in_base_space(guide: Guide, target: Target, **options: Any) -> MCMCRun:
    """NUTS on :class:`BaseSpace`, with its draws mapped back by x = f(z).

    Args:
        guide: a fitted guide.
        target: what it was fitted to.
        options: those of :func:`nfvi.nuts`; chains start from draws of the base.

    Returns:
        A run of the target, on unconstrained space. Step sizes and gradient evaluations are those
        in base space; the latter go through the guide as well.
    """
    space = BaseSpace(guide, target)
    run = nuts(space, dtype=guide.dtype, device=guide.device, **options)
    return replace(
        run,
        target=target,
        kernel=f"NUTS through {guide.formula}",
        draws=space.to_target(run.draws),
        starts=space.to_target(run.starts),
    )


def single_flow(guide: AnyGuide) -> Guide:
    """The guide, if it is one map of its base.

    Raises:
        FitError: it is a mixture, which has no base space to sample in.
    """
    if isinstance(guide, MixtureGuide):
        raise FitError(
            "the guide is a mixture, and NUTS in base space needs a single flow: take"
            " nuts(fit.target, chains=4, init=fit.guide.sample(4)), whose chains start in the modes"
            " that were found"
        )
    return guide
