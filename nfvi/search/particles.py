"""Particles that find modes too many for a mixture: sequential Monte Carlo from a broad base."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.mcmc import ParallelHMC
from nfvi.targets import Target, log_prob_anywhere

__all__ = ["BroadBase", "Particles", "anneal"]

DF = 5.0
PARTICLES = 1_024
CONDITIONAL_ESS = 0.9
"""Of each rise of β, as a share of the particles."""
MOVES = 2
MOST_STAGES = 400
HALVINGS = 40


@dataclass(frozen=True)
class BroadBase:
    """A multivariate t of 5 degrees of freedom with independent scales, N(0, s² u), 5/u ~ χ²₅.

    Attributes:
        loc: μ (d), float64.
        scale: s (d).
    """

    loc: Tensor
    scale: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws (n, d)."""
        shape, dtype = (n, len(self.loc)), self.loc.dtype
        noise = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
        squares = torch.randn((n, int(DF)), generator=generator, dtype=dtype, device=noise.device)
        wide = noise * (DF / squares.square().sum(1, keepdim=True)).sqrt()
        return self.loc + self.scale * wide.to(self.loc.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n) at points (n, d)."""
        d = len(self.loc)
        square = ((x - self.loc.to(x)) / self.scale.to(x)).square().sum(-1)
        constant = (
            math.lgamma((DF + d) / 2) - math.lgamma(DF / 2) - 0.5 * d * math.log(DF * math.pi)
        )
        volume = float(self.scale.log().sum())
        return constant - volume - 0.5 * (DF + d) * torch.log1p(square / DF)


@dataclass(frozen=True)
class Particles:
    """Draws that are near those of a target, and its log Z as they found it.

    Attributes:
        z: (n, d).
        log_z: nats.
        stages: temperatures that were passed.
        batched_evaluations: batches of gradients, one after the other.
        gradient_evaluations: points at which the gradient was taken.
        done: whether β came to 1.
    """

    z: Tensor
    log_z: float
    stages: int
    batched_evaluations: int
    gradient_evaluations: int
    done: bool


class _Tempered(Target):
    """β log p + (1 − β) log b."""

    def __init__(self, target: Target, base: BroadBase, beta: float) -> None:
        self.target, self.base, self.beta = target, base, beta
        self.dim, self.name = target.dim, target.name

    def log_prob(self, z: Tensor) -> Tensor:
        log_p = log_prob_anywhere(self.target, z)
        return self.beta * log_p + (1 - self.beta) * self.base.log_prob(z)

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        return self.target.constrain(z)


def anneal(
    target: Target,
    base: BroadBase,
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    n: int = PARTICLES,
    enough: Callable[[], bool] = lambda: False,
) -> Particles:
    """Take draws of a broad base to a target through p^β b^(1−β), by weights and HMC.

    β rises as far as the conditional effective sample size stays at 0.9 n; the particles are then
    resampled systematically and moved by HMC with the covariance that they have. The base must not
    hold a narrow part, such as a fitted guide: particles would crowd there and miss the rest.

    Args:
        target: log p.
        base: b.
        generator: of everything random.
        dtype: in which the target is evaluated.
        n: particles, more than the dimension.
        enough: asked at every stage whether to end early.

    Reference:
        Del Moral, Doucet and Jasra, Sequential Monte Carlo samplers, 2006. Zhou, Johansen and
        Aston, Toward automatic model comparison: an adaptive sequential Monte Carlo approach, 2016.
    """
    z = base.sample(n, generator).to(dtype)
    beta, log_z, step_size, stages = 0.0, 0.0, 0.5, 0
    batches = gradients = 0
    while beta < 1 and stages < MOST_STAGES and not enough():
        with torch.no_grad():
            ratio = log_prob_anywhere(target, z).double() - base.log_prob(z.double())
        ratio = torch.where(ratio.isfinite(), ratio, -torch.inf)
        rise = _rise(ratio, 1 - beta)
        beta = 1.0 if beta + rise >= 1 - 1e-9 else beta + rise
        log_weights = rise * ratio
        log_z += float(log_weights.logsumexp(0)) - math.log(n)
        z = z[_systematic(log_weights.softmax(0), generator)]
        hmc = ParallelHMC(_Tempered(target, base, beta), z, generator)
        hmc.step_size = step_size
        *_, z = hmc.run(MOVES)
        step_size = hmc.step_size
        stages += 1
        batches += hmc.gradient_evaluations // n
        gradients += hmc.gradient_evaluations
    return Particles(z, log_z, stages, batches, gradients, beta >= 1)


def _rise(ratio: Tensor, left: float) -> float:
    """How far β may rise: the conditional ESS of equal weights stays at 0.9 n."""

    def share(rise: float) -> float:
        weights = (rise * (ratio - ratio.max())).exp()
        return float(weights.mean().square() / weights.square().mean())

    if share(left) >= CONDITIONAL_ESS:
        return left
    low, high = 0.0, left
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) >= CONDITIONAL_ESS else (low, middle)
    return max(low, 1e-9)


def _systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Indices (n) of a systematic resample of weights (n) that sum to 1."""
    n = len(weights)
    start = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
    places = (torch.arange(n, device=weights.device) + start.to(weights.device)) / n
    return torch.searchsorted(weights.cumsum(0), places).clamp_max(n - 1)
