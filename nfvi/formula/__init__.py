"""The formula language: from text to flows and back."""

from nfvi.formula.formula import Formula, parse_call

__all__ = [
    "Formula",
    "parse_call",
]
