"""Exact moments of the targets that can be drawn from: mean and variance of x and of x².

Reference:
    Matthew Hoffman and Pavel Sountsov, "Tuning-Free Generalized Hamiltonian Monte Carlo", 2022,
    for why both x and x² are looked at.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from models.banana import banana
from models.funnel import funnel, funnel_2d
from models.gaussian import Gaussian
from models.mixture import GaussianMixture
from nfvi.targets import Target

__all__ = ["Moments", "exact_moments", "moments_of"]


class Moments(NamedTuple):
    """Mean and variance of every coordinate x and of its square, each (d,), float64."""

    mean: Tensor
    variance: Tensor
    square_mean: Tensor
    square_variance: Tensor


def moments_of(draws: Tensor) -> Moments:
    """The moments of draws (n, d), n at least 2."""
    x = draws.double()
    square = x.square()
    return Moments(x.mean(0), x.var(0), square.mean(0), square.var(0))


def exact_moments(target: Target, *, draws: int = 1_000_000, seed: int = 0) -> Moments:
    """The moments of a target, in closed form where there is one, else from its exact sampler.

    The funnel's must be in closed form: the variance of x² there is e^{2 s²} (3 − e^{−s²}), with
    s = 3, and a million draws do not come near it.

    Args:
        target: a ``Gaussian``, a ``GaussianMixture``, the zoo's banana or one of its funnels, or
            any other that has a sampler.
        draws: how many to take where there is no closed form.
        seed: of those.

    Raises:
        TargetError: there is neither a closed form nor a sampler.
    """
    if isinstance(target, Gaussian):
        one = target.mean.new_ones(1)
        return _mixed(one, target.mean.unsqueeze(0), target.covariance.diagonal().unsqueeze(0))
    if isinstance(target, GaussianMixture):
        variances = target.covariances.diagonal(dim1=-2, dim2=-1)
        return _mixed(target.weights, target.means, variances)
    if target in _CLOSED:
        return _CLOSED[target]
    generator = torch.Generator().manual_seed(seed)
    return moments_of(target.sample(draws, generator=generator, dtype=torch.float64, device="cpu"))


def _mixed(weights: Tensor, means: Tensor, variances: Tensor) -> Moments:
    """Of a mixture of normals: weights (K,), means and variances (K, d)."""
    second = weights @ (means.square() + variances)
    fourth = weights @ (means**4 + 6 * means.square() * variances + 3 * variances.square())
    mean = weights @ means
    return Moments(mean, second - mean.square(), second, fourth - second.square())


def _central(second: list[float], fourth: list[float]) -> Moments:
    """Of coordinates whose mean is 0, from the second and fourth moments."""
    m2, m4 = (torch.tensor(m, dtype=torch.float64, device="cpu") for m in (second, fourth))
    return Moments(torch.zeros_like(m2), m2, m2, m4 - m2.square())


def _funnel(dim: int, scale: float = 3.0) -> Moments:
    """v ~ N(0, s) and x | v ~ N(0, e^{v/2}), so that E x² = e^{s²/2} and E x⁴ = 3 e^{2 s²}."""
    rest = dim - 1
    second = [scale**2, *[math.exp(scale**2 / 2)] * rest]
    return _central(second, [3 * scale**4, *[3 * math.exp(2 * scale**2)] * rest])


def _banana(scale: float = 10.0, curvature: float = 0.03) -> Moments:
    """z1 = e − c (u² − 1) with c = b s² and e, u standard normal; E (u² − 1)² = 2, (…)⁴ = 60."""
    c = curvature * scale**2
    second = [scale**2, 1 + 2 * c**2]
    return _central(second, [3 * scale**4, 3 + 12 * c**2 + 60 * c**4])


_CLOSED = {funnel: _funnel(10), funnel_2d: _funnel(2), banana: _banana()}
