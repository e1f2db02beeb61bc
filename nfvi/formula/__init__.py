"""The formula language: from text to flows and back."""

from nfvi.formula.formula import Formula, parse_call
from nfvi.formula.size import LARGE_DIM

__all__ = [
    "LARGE_DIM",
    "Formula",
    "parse_call",
]
