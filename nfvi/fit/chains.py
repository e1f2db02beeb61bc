"""Chains from draws of a guide, in the base space of the component that they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.neutra import BaseSpace
from nfvi.guides import AnyGuide, GaussianParts, Guide, MixtureGuide, gaussian_parts
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


class _Shares(Target):
    """As :class:`_Share` in the base space of each component, for many Gaussians at once.

    A point is u (d) and, as its last coordinate, the component k whose map x = f_k(u) it goes
    through: log p(x) + log r_k(x) + log|det df_k/du|.
    """

    def __init__(self, target: Target, mixture: MixtureGuide, gaussians: GaussianParts) -> None:
        self.target, self.mixture, self.gaussians = target, mixture, gaussians
        self.dim, self.name, self.batching = target.dim + 1, target.name, target.batching
        self.named, self.log_normalizer = target.named, None
        self.differentiable_once = target.differentiable_once

    def _placed(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        which = z[:, -1].detach().long()
        return *self.gaussians.place(z[:, :-1], which), which

    def log_prob(self, z: Tensor) -> Tensor:
        x, ladj, which = self._placed(z)
        shares = self.mixture.log_parts(x).log_softmax(0)
        return log_prob_of(self.target, x) + shares.gather(0, which.unsqueeze(0))[0] + ladj

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return self.target.constrain(self.to_target(z))

    @torch.no_grad()
    def to_target(self, z: Tensor) -> Tensor:
        """x = f_k(u)."""
        return self._placed(z)[0]


@dataclass
class GuideChains:
    """Short chains of HMC; those of each component of a guide have a step size of their own.

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
    for space, z in _starts(guide, target, chains, generator):
        log_p = log_prob_anywhere(target, space.to_target(z))
        bad += int((log_p.isnan() | (log_p == torch.inf)).sum())
        z = z[log_p.isfinite()]
        started += len(z)
        if len(z):
            batches.append((_chains(space, z, generator, guide), space.to_target))
    least = guide.dim + 1 if guide.dim <= DENSE_LIMIT else 2
    if started < max(chains // 2, least):
        raise FitError("fewer than half of the guide's draws have a finite log-density")
    return GuideChains(batches, bad)


def _chains(
    space: BaseSpace | _Shares, z: Tensor, generator: torch.Generator, guide: AnyGuide
) -> ParallelHMC:
    if isinstance(guide, Guide):
        return ParallelHMC(space, z, generator)
    scale = torch.ones_like(z[0])
    if isinstance(space, BaseSpace):
        return ParallelHMC(space, z, generator, scale=scale)
    scale[-1] = 0  # the component stays as it is
    return ParallelHMC(space, z, generator, scale=scale, groups=z[:, -1].long())


def _starts(
    guide: AnyGuide, target: Target, chains: int, generator: torch.Generator
) -> Iterator[tuple[BaseSpace | _Shares, Tensor]]:
    """The target in the base space of each component, or of all of them, and where chains start."""
    if isinstance(guide, Guide):
        yield BaseSpace(guide, target), guide.base_sample(chains, generator=generator)
        return
    counts = guide.counts(chains, generator)
    gaussians = gaussian_parts(guide.guides)
    if gaussians is not None:
        which = guide.components_of(counts)
        u = guide.guides[0].base_sample(chains, generator=generator)
        yield _Shares(target, guide, gaussians), torch.cat([u, which.unsqueeze(1).to(u)], 1)
        return
    for k, (part, count) in enumerate(zip(guide.guides, counts, strict=True)):
        if count:
            space = BaseSpace(part, _Share(target, guide, k))
            yield space, part.base_sample(count, generator=generator)
