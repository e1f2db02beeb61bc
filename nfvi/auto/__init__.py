"""NFVI("auto"): the climb from Gaussians to learned flows."""

from nfvi.auto.arguments import ClimbArguments
from nfvi.auto.budget import Budget
from nfvi.auto.climb import AUTO, climb

__all__ = [
    "AUTO",
    "Budget",
    "ClimbArguments",
    "climb",
]
