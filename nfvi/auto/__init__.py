"""NFVI("auto"): the climb from Gaussians to learned flows."""

from nfvi.auto.arguments import ClimbArguments
from nfvi.auto.budget import Budget
from nfvi.auto.climb import AUTO, climb
from nfvi.auto.rungs import learned_rungs
from nfvi.auto.tried import Tried

__all__ = [
    "AUTO",
    "Budget",
    "ClimbArguments",
    "Tried",
    "climb",
    "learned_rungs",
]
