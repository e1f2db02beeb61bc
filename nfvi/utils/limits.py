"""Limits that several floors judge by."""

from __future__ import annotations

__all__ = ["KHAT_LIMIT"]

KHAT_LIMIT = 0.7
"""Below this k-hat, Pareto-smoothed importance weights can be used.

Reference:
    Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", 2024.
"""
