"""Narrow modes that a search by wide draws does not meet, and how far it is from that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NEEDLES", "Needle", "hits"]

DRAWS = 131_072
"""Wide draws of a search in more than five dimensions, unless a target is much work."""
REACH = (1.0, 3.0, 10.0)
DF = 5
"""Of the t distributions from which they come, in sds of the wide part."""
POINTS = 100_000


@dataclass(frozen=True)
class Needle:
    """N(0, I) in d dimensions and a narrow Gaussian beside it.

    Attributes:
        target: its name.
        dim: d.
        distance: of the narrow one from 0.
        sd: its own.
        share: its mass.
    """

    target: str
    dim: int
    distance: float
    sd: float
    share: float


NEEDLES = (
    Needle("spikeoff_d10", 10, 1.0, 0.05, 0.5),
    Needle("wide_narrow_far_d10", 10, 6.0, 0.1, 0.5),
    Needle("minor_d10", 10, 12.0, 0.3, 0.1),
)
"""Those of the list that fits are expected to miss, and to miss silently."""


def hits(needle: Needle, draws: int = DRAWS) -> float:
    """How many wide draws are expected where the narrow part outweighs the wide one.

    There log p rises towards the narrow mode, and an ascent ends at it. The draws lie around the
    wide part, which a fit finds first. By Monte Carlo over a ball, with a seed of its own; to 5 %.
    """
    d, sd = needle.dim, needle.sd
    centre = torch.zeros(d, dtype=torch.float64)
    centre[0] = needle.distance
    height = math.log(needle.share / (1 - needle.share)) - d * math.log(sd)
    radius = _radius(needle, height)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(POINTS, d, generator=generator, dtype=torch.float64)
    uniform = torch.rand(POINTS, 1, generator=generator, dtype=torch.float64)
    off = radius * uniform ** (1 / d) * torch.nn.functional.normalize(noise, dim=1)
    x = centre + off
    there = height - 0.5 * (off / sd).square().sum(1) > -0.5 * x.square().sum(1)
    density = torch.stack([_log_t(x, reach) for reach in REACH]).exp().mean(0)
    log_volume = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1) + d * math.log(radius)
    return draws * math.exp(log_volume) * float((density * there).mean())


def _radius(needle: Needle, height: float) -> float:
    """Of the ball around the narrow mode beyond which it nowhere outweighs the wide part.

    With h the log of the ratio of the peaks, it does so at a distance r in direction of the wide
    part's fall where h − r² / 2s² + (D + r)² / 2 > 0.
    """
    curvature = 1 / needle.sd**2 - 1
    slope = needle.distance
    root = math.sqrt(slope**2 + curvature * (2 * height + slope**2))
    return (slope + root) / curvature


def _log_t(x: Tensor, scale: float) -> Tensor:
    """The log-density of a multivariate t with DF degrees of freedom around 0."""
    d = x.shape[1]
    constant = math.lgamma((DF + d) / 2) - math.lgamma(DF / 2) - d / 2 * math.log(DF * math.pi)
    square = (x / scale).square().sum(1)
    return constant - d * math.log(scale) - 0.5 * (DF + d) * torch.log1p(square / DF)
