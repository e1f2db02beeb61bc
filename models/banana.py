"""The banana: a Gaussian twisted along a parabola.

Reference:
    Heikki Haario, Eero Saksman and Johanna Tamminen, "Adaptive Proposal Distribution for Random
    Walk Metropolis Algorithm", 1999, section 4.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets import LogDensity

__all__ = ["banana", "make_banana"]


def make_banana(dim: int = 2, *, scale: float = 10.0, curvature: float = 0.03) -> LogDensity:
    """The banana exp(−½ (z0²/s² + (z1 + b z0² − b s²)² + z2² + …)), scale s and curvature b.

    It is the normal kernel with variances (s², 1, …, 1) after a map of unit Jacobian, so
    log Z = (d/2) log 2π + log s. Exact moments: every mean is 0, no two coordinates are
    correlated, and the variances are s², 1 + 2 b² s⁴, 1, ….

    Args:
        dim: d, at least 2.
        scale: s, the standard deviation of z0, over 0.
        curvature: b; the authors call 0.03 moderately and 0.1 strongly twisted. 0 is a Gaussian.

    Raises:
        TargetError: an argument is out of its range.
    """
    if dim < 2:
        raise TargetError(f"a banana needs dim= of at least 2; got {dim!r}")
    if not 0 < scale < math.inf:
        raise TargetError(f"scale= must be over 0 and finite; got {scale!r}")
    if not math.isfinite(curvature):
        raise TargetError(f"curvature= must be finite; got {curvature!r}")
    return LogDensity(
        partial(_log_kernel, scale=scale, curvature=curvature),
        dim,
        name="banana" if dim == 2 else f"banana_{dim}d",
        log_normalizer=0.5 * dim * math.log(2 * math.pi) + math.log(scale),
        sampler=partial(_sample, dim=dim, scale=scale, curvature=curvature),
        batched=True,
    )


def _bend(z0: Tensor, scale: float, curvature: float) -> Tensor:
    """How far the parabola pulls z1 down: b (z0² − s²)."""
    return curvature * (z0.square() - scale**2)


def _log_kernel(z: Tensor, *, scale: float, curvature: float) -> Tensor:
    z0, z1, rest = z[:, 0], z[:, 1], z[:, 2:]
    straight = z1 + _bend(z0, scale, curvature)
    return -0.5 * ((z0 / scale).square() + straight.square() + rest.square().sum(-1))


def _sample(
    n: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device,
    *,
    dim: int,
    scale: float,
    curvature: float,
) -> Tensor:
    noise = torch.randn(n, dim, generator=generator, dtype=dtype, device=device)
    z0 = scale * noise[:, :1]
    return torch.cat([z0, noise[:, 1:2] - _bend(z0, scale, curvature), noise[:, 2:]], dim=-1)


banana = make_banana()
"""The authors' moderately twisted one in the plane: d = 2, s = 10, b = 0.03."""
