"""Chains from draws of a guide, in the base space of the component that they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.neutra import BaseSpace
from nfvi.guides import AnyGuide, Guide, MixtureGuide
from nfvi.mcmc import DENSE_LIMIT, ParallelHMC
from nfvi.targets import Target, log_prob_anywhere, log_prob_of

__all__ = ["GuideChains", "start_chains"]


class _Share(Target):
    """The part of a target that a component of a mixture is answerable for, p(x) r_k(x).

    r_k = w_k q_k / Σ_j w_j q_j. Where the mixture is the target, this is w_k q_k itself, so that
    chains from draws of q_k stay as they are, whatever their steps.
    """

    def __init__(self, target: Target, mixture: MixtureGuide, k: int) -> None:
        self.target, self.mixture, self.k = target, mixture, k
        self.dim, self.name, self.batching = target.dim, target.name, target.batching
        self.named, self.log_normalizer = target.named, None
        self.differentiable_once = target.differentiable_once

    def log_prob(self, z: Tensor) -> Tensor:
        share = self.mixture.log_parts(z).log_softmax(0)[self.k]
        return log_prob_of(self.target, z) + share

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return self.target.constrain(z)


@dataclass
class GuideChains:
    """Short chains of HMC, a batch for each component of a guide with its own step size.

    Attributes:
        batches: the chains, and the map from where they run to the target's space.
        not_finite: draws of the guide at which log p was NaN or +∞.
    """

    batches: list[tuple[ParallelHMC, Callable[[Tensor], Tensor]]]
    not_finite: int

    def positions(self) -> Tensor:
        """Where all chains are (n, d), on the space of the target."""
        return torch.cat([to_target(hmc.points.z) for hmc, to_target in self.batches])

    def step(self) -> None:
        """One iteration of all chains."""
        for hmc, _ in self.batches:
            for _ in hmc.run(1):
                pass

    @property
    def accept(self) -> float:
        """Mean acceptance of the last iteration."""
        lengths = [len(hmc.points.z) for hmc, _ in self.batches]
        rates = [hmc.accept * n for (hmc, _), n in zip(self.batches, lengths, strict=True)]
        return sum(rates) / sum(lengths)

    @property
    def gradient_evaluations(self) -> int:
        """Points at which the target's gradient was taken."""
        return sum(hmc.gradient_evaluations for hmc, _ in self.batches)


@torch.no_grad()
def start_chains(
    guide: AnyGuide, target: Target, chains: int, generator: torch.Generator
) -> GuideChains:
    """Chains at draws of a guide that have a finite log-density.

    Raises:
        FitError: fewer than half of the draws have one.
    """
    batches: list[tuple[ParallelHMC, Callable[[Tensor], Tensor]]] = []
    bad = started = 0
    for part, space, count in _parts(guide, target, chains, generator):
        z = part.base_sample(count, generator=generator)
        log_p = log_prob_anywhere(target, part.transform(z)[0])
        bad += int((log_p.isnan() | (log_p == torch.inf)).sum())
        z = z[log_p.isfinite()]
        started += len(z)
        if len(z):
            few = isinstance(guide, MixtureGuide)
            batches.append((ParallelHMC(space, z, generator, unit=few), space.to_target))
    least = guide.dim + 1 if guide.dim <= DENSE_LIMIT else 2
    if started < max(chains // 2, least):
        raise FitError("fewer than half of the guide's draws have a finite log-density")
    return GuideChains(batches, bad)


def _parts(
    guide: AnyGuide, target: Target, chains: int, generator: torch.Generator
) -> list[tuple[Guide, BaseSpace, int]]:
    """Each component, the target in its base space, and how many chains it gets."""
    if isinstance(guide, Guide):
        return [(guide, BaseSpace(guide, target), chains)]
    counts = guide.counts(chains, generator)
    return [
        (part, BaseSpace(part, _Share(target, guide, k)), count)
        for k, (part, count) in enumerate(zip(guide.guides, counts, strict=True))
        if count
    ]
