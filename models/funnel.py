"""Neal's funnel: a scale and the values it scales.

Reference:
    Radford Neal, "Slice Sampling", 2003, section 8.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets import LogDensity

__all__ = ["funnel", "funnel_2d", "make_funnel"]


def make_funnel(dim: int = 10, *, scale: float = 3.0) -> LogDensity:
    """The funnel v ~ N(0, scale²), x_i | v ~ N(0, eᵛ) for i = 1, …, d − 1, with z = (v, x).

    The density is normalised, so log Z = 0. Exact moments: every mean is 0, sd(v) = scale and
    var(x_i) = exp(scale² / 2).

    Args:
        dim: d, at least 2; Neal's is 10.
        scale: the standard deviation of v, over 0; Neal's is 3.

    Raises:
        TargetError: dim is below 2, or scale is not over 0.
    """
    if dim < 2:
        raise TargetError(f"a funnel needs dim= of at least 2 (v and one x); got {dim!r}")
    if not 0 < scale < math.inf:
        raise TargetError(f"scale= must be over 0 and finite; got {scale!r}")
    return LogDensity(
        partial(_log_prob, scale=scale),
        dim,
        name="funnel" if dim == 10 else f"funnel_{dim}d",
        log_normalizer=0.0,
        sampler=partial(_sample, dim=dim, scale=scale),
        batched=True,
    )


def _log_prob(z: Tensor, *, scale: float) -> Tensor:
    v, x = z[:, 0], z[:, 1:]
    constant = 0.5 * z.shape[1] * math.log(2 * math.pi) + math.log(scale)
    # x is scaled before it is squared: exp(-v) alone overflows twice as early in float32.
    scaled = x * torch.exp(-0.5 * v).unsqueeze(-1)
    mouth = v.square() * (-0.5 / scale**2)
    return mouth - 0.5 * (scaled.square().sum(-1) + x.shape[1] * v) - constant


def _sample(
    n: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device,
    *,
    dim: int,
    scale: float,
) -> Tensor:
    noise = torch.randn(n, dim, generator=generator, dtype=dtype, device=device)
    v = scale * noise[:, :1]
    return torch.cat([v, torch.exp(0.5 * v) * noise[:, 1:]], dim=-1)


funnel = make_funnel()
"""Neal's own: d = 10."""

funnel_2d = make_funnel(2)
"""The funnel that can be drawn: d = 2."""
