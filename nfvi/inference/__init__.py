"""NFVI, the face of the package, and what becomes of its arguments."""

from nfvi.inference.arguments import FitArguments
from nfvi.inference.auto import AUTO, is_auto
from nfvi.inference.init import WORDS
from nfvi.inference.nfvi import NFVI
from nfvi.inference.target import target_trainer

__all__ = [
    "AUTO",
    "NFVI",
    "WORDS",
    "FitArguments",
    "is_auto",
    "target_trainer",
]
