"""The exceptions and the warning of nfvi, each of the built-in kind that a caller would expect."""

from __future__ import annotations

from typing import Any

__all__ = ["FitError", "FitWarning", "FormulaError", "TargetError"]


class FormulaError(ValueError):
    """A formula or base that cannot be read or built; the message shows the place with a caret."""


class TargetError(ValueError):
    """A target that cannot be used: wrong shape, not finite, not differentiable, discrete sites.

    Args:
        message: what is wrong, and what to do about it.
        guide: the last good guide, where a target ended a fit that was running; else ``None``.
    """

    def __init__(self, message: str, guide: Any = None) -> None:
        super().__init__(message)
        self.guide = guide


class FitError(RuntimeError):
    """A fit that cannot go on, or a file of one that cannot be read.

    Where the target raised in the middle of a fit, its exception is the ``__cause__``.

    Args:
        message: what happened, at which step, in which flow and parameter, and what to try.
        guide: the guide with the last parameters whose loss and gradient were finite, or ``None``
            when there were none.
    """

    def __init__(self, message: str, guide: Any = None) -> None:
        super().__init__(message)
        self.guide = guide


class FitWarning(UserWarning):
    """A result is taken from a fit whose verdict is "not to be trusted".

    It is given once for each fit, and again after ``refine``. To turn it off:
    ``warnings.simplefilter("ignore", nfvi.FitWarning)``.
    """
