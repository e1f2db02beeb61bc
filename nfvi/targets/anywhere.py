"""A target's log-density at points that may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.checks import checked_call
from nfvi.targets.factorization import NanWhereSingular

__all__ = ["log_prob_anywhere"]

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]


def log_prob_anywhere(target: Target, z: Tensor) -> Tensor:
    """log p(z) (n) at points (n, d), differentiable; NaN where a factorisation fails.

    Far from its mass a target may be asked for the Cholesky factor of what is no covariance any
    more, which torch answers with an error for the whole batch. The batch is then run again with
    factors that are NaN where there are none. Where an error comes all the same, the batch is
    halved until only the points at fault are left.

    Raises:
        TargetError: the values are not (n), or the target wrote into z.
    """
    try:
        return checked_call(target.log_prob, z, target.name)
    except LinAlgError:
        return _in_spite_of_failures(target, z)


def _in_spite_of_failures(target: Target, z: Tensor) -> Tensor:
    try:
        with NanWhereSingular():
            return checked_call(target.log_prob, z, target.name)
    except LinAlgError:
        if len(z) == 1:
            return z.sum(-1) * torch.nan
        return torch.cat([log_prob_anywhere(target, part) for part in z.tensor_split(2)])
