"""The small targets by name: each is made when it is asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.multimodal.families import (
    Number,
    banana,
    funnel,
    gaussian_mixture,
    independent,
    radial,
    sine_ridge,
)
from benchmarks.multimodal.problem import Problem

__all__ = ["SMALL"]

Make = Callable[[], Problem]
EDGE = 500.0
"""Of the boxes: beyond it the density falls as a Gaussian of sd 0.03."""


def _along(dim: int, distance: float) -> Number:
    """The point at a distance from 0 along the first axis."""
    return [distance, *[0.0] * (dim - 1)]


def _pair(dim: int, far: Number, narrow: float, share: float = 0.5) -> Problem:
    """N(0, I), and with a share of the mass an isotropic Gaussian elsewhere."""
    return gaussian_mixture(dim, [1 - share, share], [0.0, far], [1.0, narrow])


def _in_dimensions(d: int) -> dict[str, Make]:
    """Targets that are made in d = 2, 5 and 10."""
    two = partial(gaussian_mixture, d, [0.5, 0.5])
    return {
        f"spike_d{d}_sd0.01": partial(_pair, d, 0.0, 0.01),
        f"spike_d{d}_sd0.1": partial(_pair, d, 0.0, 0.1),
        f"spikeoff_d{d}": partial(_pair, d, _along(d, 1.0), 0.05),
        f"wide_narrow_far_d{d}": partial(_pair, d, _along(d, 6.0), 0.1),
        f"narrow_center_wide_d{d}": partial(two, [0.0, 0.0], [1.0, 10.0]),
        f"sep30_d{d}": partial(two, [_along(d, -15.0), _along(d, 15.0)], [1.0, 1.0]),
        f"minor_d{d}": partial(_pair, d, 12 / math.sqrt(d), 0.3, 0.1),
        f"needle_slab_d{d}": partial(
            gaussian_mixture, d, [0.3, 0.7], [0.0, 0.0], [math.sqrt(0.001), math.sqrt(10)]
        ),
        f"funnel3_d{d}": partial(funnel, d, 3.0),
        f"spikeslab_indep_d{d}": partial(_spike_and_slab, d),
    }


def _spike_and_slab(dim: int) -> Problem:
    """In each coordinate half N(0, 0.02²) and half N(0, 1), without their constants."""

    def spike(x: Tensor) -> Tensor:
        return math.log(0.5) - 0.5 * (x / 0.02).square() - math.log(0.02)

    def slab(x: Tensor) -> Tensor:
        return math.log(0.5) - 0.5 * x.square()

    return independent(
        dim, lambda x: torch.logaddexp(spike(x), slab(x)), -12, 12, parts=[spike, slab]
    )


def _double_well(dim: int) -> Problem:
    """Two wells of unequal mass in each coordinate: 2^d modes."""

    def log_p(x: Tensor) -> Tensor:
        return -(x**4) + 6 * x.square() + 0.5 * x

    return independent(dim, log_p, -8, 8, parts=halves(log_p))


def halves(log_p: Callable[[Tensor], Tensor]) -> list[Callable[[Tensor], Tensor]]:
    """What lies left of 0, and what lies right of it."""
    return [
        lambda x: torch.where(x < 0, log_p(x), -torch.inf),
        lambda x: torch.where(x < 0, -torch.inf, log_p(x)),
    ]


def _box(dim: int) -> Problem:
    return independent(dim, lambda x: -EDGE * torch.relu(x.abs() - 1).square(), -3, 3)


def _log_gamma(dim: int, shape: float) -> Problem:
    """Logarithms of gamma variables: a Gumbel distribution where the shape is 1."""
    return independent(dim, lambda x: shape * x - x.exp(), -60 / min(shape, 1.0), 10)


def _laplace(dim: int) -> Problem:
    return independent(dim, lambda x: -(x.square() + 1e-8).sqrt(), -60, 60)


def _shell(dim: int, radius: float, sd: float) -> Problem:
    return radial(dim, _around(radius, sd), 2 * radius + 10 * sd)


def _two_rings() -> Problem:
    inner, outer = _around(2.0, 0.1), _around(6.0, 0.1)
    return radial(2, lambda r: torch.logaddexp(inner(r), outer(r)), 12, parts=[inner, outer])


def _around(radius: float, sd: float) -> Callable[[Tensor], Tensor]:
    return lambda r: -0.5 * ((r - radius) / sd).square()


def _random_mixture(seed: int, dim: int, count: int, far: float, spread: float) -> Problem:
    """Components of random weights, places and widths."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet([1] * count).tolist()
    locs = (far * rng.normal(size=(count, dim))).tolist()
    sds = np.exp(spread * rng.normal(size=count)).tolist()
    return gaussian_mixture(dim, weights, locs, sds)


def _grid(side: int, step: float, sds: list[Number], weights: list[float]) -> Problem:
    """side × side modes around the origin."""
    places = [step * (i - (side - 1) / 2) for i in range(side)]
    return gaussian_mixture(2, weights, [list(p) for p in itertools.product(places, repeat=2)], sds)


def _relabelled(places: list[float]) -> Problem:
    """A mode for every order of the places, as labels that switch make."""
    locs = [list(order) for order in itertools.permutations(places)]
    return gaussian_mixture(len(places), [1.0] * len(locs), locs, [0.4] * len(locs))


def _cross(dim: int, wide: float, narrow: float) -> Problem:
    """Two Gaussians across each other, each wide in one half of the coordinates."""
    first, second = [wide] * (dim // 2), [narrow] * (dim // 2)
    return gaussian_mixture(dim, [0.5, 0.5], [0.0, 0.0], [first + second, second + first])


SMALL: dict[str, Make] = {
    **{name: make for d in (2, 5, 10) for name, make in _in_dimensions(d).items()},
    "sep30_d1": partial(gaussian_mixture, 1, [0.5, 0.5], [-15.0, 15.0], [1.0, 1.0]),
    "sep30_uneq_d1": partial(gaussian_mixture, 1, [0.3, 0.7], [-15.0, 15.0], [1.0, 1.0]),
    "wide_narrow_d1": partial(_pair, 1, 4.0, 0.01),
    "sep200_d2": partial(gaussian_mixture, 2, [0.5, 0.5], [-100.0, 100.0], [1.0, 1.0]),
    "two_narrow_d10": partial(
        gaussian_mixture, 10, [0.5, 0.5], [_along(10, -3.0), _along(10, 3.0)], [0.1, 0.1]
    ),
    "grid25": partial(_grid, 5, 2.0, [0.1] * 25, [1.0] * 25),
    "grid9_uneq": partial(
        _grid, 3, 6.0, [0.2 + 0.1 * k for k in range(9)], [float(k) for k in range(1, 10)]
    ),
    "ring_d2_s.1": partial(_shell, 2, 5.0, 0.1),
    "ring_d2_s.5": partial(_shell, 2, 5.0, 0.5),
    "shell_d3": partial(_shell, 3, 5.0, 0.2),
    "shell_d10_R10_s.5": partial(_shell, 10, 10.0, 0.5),
    "shell_d10_R5_s.1": partial(_shell, 10, 5.0, 0.1),
    "tworings_d2": _two_rings,
    "doublewell_d5": partial(_double_well, 5),
    "doublewell_d10": partial(_double_well, 10),
    "doublewell_d20": partial(_double_well, 20),
    "banana.03": partial(banana, 0.03),
    "banana.1": partial(banana, 0.1),
    "sinridge3": partial(sine_ridge, 3.0, 0.1),
    "sinridge8": partial(sine_ridge, 8.0, 0.05),
    "label3": partial(_relabelled, [-4.0, 0.0, 4.0]),
    "label4": partial(_relabelled, [-5.0, -1.5, 1.5, 5.0]),
    "box_d2": partial(_box, 2),
    "box_d10": partial(_box, 10),
    "gumbel_d5": partial(_log_gamma, 5, 1.0),
    "loggamma.1_d5": partial(_log_gamma, 5, 0.1),
    "laplace_d5": partial(_laplace, 5),
    "modes5_rand_d5": partial(_random_mixture, 1, 5, 5, 4.0, 0.7),
    "modes8_rand_d2": partial(_random_mixture, 2, 2, 8, 6.0, 0.7),
    "modes5_rand_d10": partial(_random_mixture, 3, 10, 5, 3.0, 0.5),
    "onefar_d2": partial(_pair, 2, 60.0, 1.0, 0.3),
    "far_narrow_d2": partial(_pair, 2, 10.0, 0.05, 0.3),
    "cross": partial(_cross, 2, 5.0, 0.1),
    "cross_d10": partial(_cross, 10, 5.0, 0.2),
}
"""Makers of :class:`~benchmarks.multimodal.problem.Problem` by the name of the target."""
