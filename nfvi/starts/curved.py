"""A Gaussian of full rank in many dimensions, from the curvature of log p and then from draws.

A regression on draws takes several times as many as there are dimensions, in each of a hundred
steps. Differences of gradients give the curvature at a point exactly, for two gradients a
dimension; what the mean of the curvature is beyond that, a few large sets of draws tell.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from nfvi.starts.gaussian_fit import REACH, Enough, gaussian_elbos
from nfvi.starts.gaussian_points import place
from nfvi.targets import Target, laplace, log_prob_and_score

__all__ = ["CURVED_LIMIT", "Curved", "fit_by_curvature"]

logger = logging.getLogger(__name__)

CURVED_LIMIT = 2_000
"""Dimensions: L is 32 MB there, and its curvature 8 000 gradients at two points."""
TURNS = 10
# On a log-Gaussian Cox process of 1 600 dimensions two turns gain 17 nats. The curvature at the new
# mean then loses 2.4 of them, and its mean over 16 draws, which is three in four of the cost, gains
# nothing.
DRAWS = 1_000
PIECE = 250
LONGEST = 10.0
"""Of a move of the mean, in sds along the whole of it."""
LEAST_GAIN = 0.05
# Draws for each dimension. On that process they gain 0.45, 0.25 and 0.09 nats, for 5, 8 and 14 s of
# CPU, and come to 0.04 below the best Gaussian there is.
SETS = (5, 10, 20)


class Curved:
    """N(μ, L Lᵀ) and what it has cost.

    Attributes:
        loc: μ (d), float64.
        tril: L (d, d).
        iterations: batches of gradients, one after the other.
        gradient_evaluations: points at which the gradient was taken.
    """

    def __init__(self, loc: Tensor, tril: Tensor) -> None:
        self.loc, self.tril = loc, tril
        self.iterations = self.gradient_evaluations = 0


def fit_by_curvature(
    target: Target, mode: Tensor, generator: torch.Generator, dtype: torch.dtype, enough: Enough
) -> Curved | None:
    """Maximise the ELBO of a Gaussian that starts as Laplace's, by Newton's steps.

    At the maximum of the ELBO E[∇ log p] = 0, with the expectation over the Gaussian. So
    μ ← μ + L Lᵀ E[∇ log p], from 1 000 draws in pairs of mirror images, until that gains less than
    0.05 nats on common noise.

    There, too, (L Lᵀ)⁻¹ = −E[∂²log p]. With z = μ + L ε and the residual r = Lᵀ ∇ log p(z) + ε
    Stein's identity is C = E[r εᵀ] = I + Lᵀ E[∂²log p] L, so that L Lᵀ ← L (I − C)⁻¹ Lᵀ. Where C is
    small, that gains ‖C‖² / 4 nats. From n draws ‖C‖² has a noise of E‖r‖² (d + 1) / n, by which
    the estimate is shrunk.

    Args:
        target: log p.
        mode: where the ascent has ended (d).
        generator: of the draws.
        dtype: in which the target is evaluated.
        enough: asked after every batch, with the gradients so far, whether to end early.

    Returns:
        ``None`` where the curvature at the mode is not positive definite.

    Reference:
        Opper and Archambeau, The variational Gaussian approximation revisited, 2009.
    """
    tril = laplace(target, mode, dtype)
    if tril is None:
        return None
    found = Curved(mode.double(), tril)
    found.iterations, found.gradient_evaluations = 1, 2 * len(mode)
    _Newton(target, found, generator, dtype, enough).run()
    return found


class _Moments(NamedTuple):
    """Of the residual r over mirrored draws.

    Attributes:
        mean: E[r] (d).
        slope: C = E[r εᵀ], made symmetric and shrunk (d, d); ``None`` if it was not asked for.
    """

    mean: Tensor
    slope: Tensor | None


class _Newton:
    """The steps; each is kept only if the ELBO rises on common noise."""

    def __init__(
        self,
        target: Target,
        found: Curved,
        generator: torch.Generator,
        dtype: torch.dtype,
        enough: Enough,
    ) -> None:
        self.target, self.found, self.generator, self.dtype = target, found, generator, dtype
        self._enough = enough
        self.common = self._noise(DRAWS)
        self.elbo = self._elbo(found.loc, found.tril)

    def run(self) -> None:
        """Move the mean until that gains no more, and then shape and mean together."""
        for _ in range(TURNS):
            if not self._step(DRAWS, shape=False):
                break
        for times in SETS:
            if not self._step(times * len(self.found.loc), shape=True):
                break

    def _step(self, draws: int, *, shape: bool) -> bool:
        """One step; whether it was worth it."""
        moments = self._moments(draws, shape=shape)
        if moments is None:
            return False
        loc, tril = self._moved(moments)
        elbo = self._elbo(loc, tril)
        logger.debug("a Gaussian by curvature: ELBO %.4f, was %.4f", elbo, self.elbo)
        if not elbo > self.elbo:
            return False
        gain, self.elbo = elbo - self.elbo, elbo
        self.found.loc, self.found.tril = loc, tril
        return gain >= LEAST_GAIN

    def _moments(self, draws: int, *, shape: bool) -> _Moments | None:
        """Of so many draws; ``None`` if there is no time for them, or C has nothing to gain."""
        loc, tril = self.found.loc, self.found.tril
        total, slope, square, half, done = torch.zeros_like(loc), torch.zeros_like(tril), 0.0, 0, 0
        while done < draws:
            if self._enough(self.found.gradient_evaluations):
                return None
            noise = self._noise(PIECE)
            z = place(loc[None], tril[None], noise)[0]
            score = log_prob_and_score(self.target, z.to(self.dtype))[1].double()
            self.found.iterations += 1
            self.found.gradient_evaluations += len(z)
            done += len(z)
            residual = score.nan_to_num(0.0, 0.0, 0.0) @ tril + noise
            total += residual.sum(0)
            if shape:
                # E[r] and what is even in ε cancel within a pair.
                first, second = residual.chunk(2)
                odd = 0.5 * (first - second)
                half += len(odd)
                slope += odd.T @ noise[: len(odd)]
                square += float(odd.square().sum())
                if square / half < 4 * LEAST_GAIN:  # no less than ‖C‖²
                    return None
        return _Moments(total / done, _shrunk(slope / half, square / half, half) if shape else None)

    def _moved(self, moments: _Moments) -> tuple[Tensor, Tensor]:
        """μ and L after a step."""
        loc, tril = self.found.loc, self.found.tril
        if moments.slope is None:
            return loc + tril @ _short(moments.mean), tril
        values, vectors = torch.linalg.eigh(moments.slope)
        precision = (1 - values).log().nan_to_num(-REACH).clamp(-REACH, REACH).exp()
        inverse = (vectors / precision) @ vectors.T
        return (
            loc + tril @ _short(inverse @ moments.mean),
            tril @ torch.linalg.cholesky(0.5 * (inverse + inverse.T)),
        )

    def _noise(self, n: int) -> Tensor:
        """ε (n, d) in pairs ε, −ε, float64."""
        like, generator = self.found.loc, self.generator
        shape = n // 2, len(like)
        half = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
        half = half.to(like.device)
        return torch.cat([half, -half])

    def _elbo(self, loc: Tensor, tril: Tensor) -> float:
        noise = self.common.to(self.dtype)
        return float(gaussian_elbos(self.target, loc[None], tril[None], noise)[0])


def _shrunk(slope: Tensor, square: float, draws: int) -> Tensor:
    """C made symmetric, and as much smaller as its noise is of it."""
    slope = 0.5 * (slope + slope.T)
    noise = square * (len(slope) + 1) / (2 * draws)
    whole = float(slope.square().sum())
    return slope * max(0.0, 1 - noise / whole)


def _short(step: Tensor) -> Tensor:
    """A step of the mean in units of sd, no longer than may be."""
    short: Tensor = step * (LONGEST / step.norm().clamp_min(LONGEST))
    return short
