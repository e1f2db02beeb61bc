"""The log-likelihood of observations, where a target tells them apart."""

from __future__ import annotations

from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.base import Target

__all__ = ["known_likelihood"]


def known_likelihood(target: Target, z: Tensor) -> dict[str, Tensor]:
    """``target.log_likelihood`` at points z (n, d); nothing where the target refuses."""
    try:
        return target.log_likelihood(z)
    except TargetError:
        return {}
