"""A target's log-density at points that may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.checks import checked_call

__all__ = ["log_prob_anywhere"]


def log_prob_anywhere(target: Target, z: Tensor) -> Tensor:
    """log p(z) (n) at points (n, d), differentiable; NaN where a factorisation fails.

    Far from its mass a target may be asked for the Cholesky factor of what is no covariance any
    more, which torch answers with an error for the whole batch. The batch is then halved until
    only the points at fault are left.

    Raises:
        TargetError: the values are not (n), or the target wrote into z.
    """
    try:
        return checked_call(target.log_prob, z, target.name)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if len(z) == 1:
            return z.sum(-1) * torch.nan
        return torch.cat([log_prob_anywhere(target, part) for part in z.tensor_split(2)])
