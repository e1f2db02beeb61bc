"""Laplace's approximation: the Gaussian with the curvature of a log-density at a mode."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.score import log_prob_and_score

__all__ = ["batches_of_laplace", "laplace", "laplace_all"]

# Least squared pivot of a precision whose diagonal is scaled to 1: below, the rounding of finite
# differences decides whether it is definite.
FLATTEST = 1e-10
AT_ONCE = 300
"""Differences that are one batch."""


def laplace(target: Target, mode: Tensor, dtype: torch.dtype) -> Tensor | None:
    """L (d, d) with L Lᵀ the inverse of −∇² log p at a mode (d); ``None`` where it is not definite.

    The Hessian is that of central differences of the gradient, in batches of 2 d points, 600 at
    most.

    Args:
        target: log p.
        mode: (d).
        dtype: in which the target is evaluated.
    """
    return laplace_all(target, mode.unsqueeze(0), dtype)[0]


def laplace_all(target: Target, modes: Tensor, dtype: torch.dtype) -> list[Tensor | None]:
    """:func:`laplace` at each of K modes (K, d), whose differences share batches."""
    return [_factor(precision) for precision in _precisions(target, modes, dtype)]


def batches_of_laplace(modes: int, dim: int) -> int:
    """Batches of gradients that the Hessians at so many modes take."""
    return -(-modes * dim // AT_ONCE)


def _factor(precision: Tensor) -> Tensor | None:
    scale = precision.diagonal().clamp_min(0).sqrt()
    if not bool(precision.isfinite().all() & (scale > 0).all()):
        return None
    # Scaled to a unit diagonal, so that the units of the coordinates do not matter.
    lower, info = torch.linalg.cholesky_ex(precision / scale.unsqueeze(1) / scale)
    if int(info) or float(lower.diagonal().min()) < FLATTEST**0.5:
        return None
    covariance = torch.cholesky_inverse(lower) / scale.unsqueeze(1) / scale
    factor, info = torch.linalg.cholesky_ex(covariance)
    return None if int(info) else factor


def _precisions(target: Target, points: Tensor, dtype: torch.dtype) -> Tensor:
    """−∇² log p (K, d, d) at points (K, d)."""
    size = torch.finfo(torch.float64).eps ** (1 / 3) if dtype == torch.float64 else 1e-3
    step = size * (1 + points.abs())
    k, d = points.shape
    # One line a difference: the place that it is at, and how far to each side.
    at, offsets = points.repeat_interleave(d, 0), step.diag_embed().flatten(0, 1)
    rows = []
    for here, offset in zip(at.split(AT_ONCE), offsets.split(AT_ONCE), strict=True):
        near = torch.cat([here + offset, here - offset])
        slopes = log_prob_and_score(target, near.to(dtype))[1].double()
        rows.append(slopes[: len(here)] - slopes[len(here) :])
    hessian = torch.cat(rows).reshape(k, d, d) / (2 * step).unsqueeze(2)
    precision: Tensor = -0.5 * (hessian + hessian.mT)
    return precision
