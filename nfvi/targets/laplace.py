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


def laplace(target: Target, mode: Tensor, dtype: torch.dtype) -> Tensor | None:
    """L (d, d) with L Lᵀ the inverse of −∇² log p at a mode (d); ``None`` where it is not definite.

    The Hessian is that of central differences of the gradient, in one batch of 2 d points.
    """
    d = len(mode)
    size = torch.finfo(torch.float64).eps ** (1 / 3) if dtype == torch.float64 else 1e-3
    step = size * (1 + mode.abs())
    offsets = torch.cat([step.diag_embed(), -step.diag_embed()])
    slopes = log_prob_and_score(target, (mode + offsets).to(dtype))[1].double()
    hessian = (slopes[:d] - slopes[d:]) / (2 * step).unsqueeze(1)
    precision = -0.5 * (hessian + hessian.T)
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
