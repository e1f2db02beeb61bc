"""Laplace's approximation: the Gaussian with the curvature of a log-density at a mode."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.score import log_prob_and_score

__all__ = ["laplace"]

# Least squared pivot of a precision whose diagonal is scaled to 1: below, the rounding of finite
# differences decides whether it is definite.
FLATTEST = 1e-10
AT_ONCE = 300
"""Dimensions whose differences are one batch."""


def laplace(target: Target, mode: Tensor, dtype: torch.dtype) -> Tensor | None:
    """L (d, d) with L Lᵀ the inverse of −∇² log p at a mode (d); ``None`` where it is not definite.

    The Hessian is that of central differences of the gradient, in batches of 2 d points, 600 at
    most.

    Args:
        target: log p.
        mode: (d).
        dtype: in which the target is evaluated.
    """
    precision = _precision(target, mode, dtype)
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


def _precision(target: Target, point: Tensor, dtype: torch.dtype) -> Tensor:
    """−∇² log p (d, d) at a point (d)."""
    size = torch.finfo(torch.float64).eps ** (1 / 3) if dtype == torch.float64 else 1e-3
    step = size * (1 + point.abs())
    rows = []
    for offsets in step.diag_embed().split(AT_ONCE):
        near = point + torch.cat([offsets, -offsets])
        slopes = log_prob_and_score(target, near.to(dtype))[1].double()
        rows.append(slopes[: len(offsets)] - slopes[len(offsets) :])
    hessian = torch.cat(rows) / (2 * step).unsqueeze(1)
    precision: Tensor = -0.5 * (hessian + hessian.T)
    return precision
