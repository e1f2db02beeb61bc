"""A guide that is fitted: how it was made, and a stream of draws of its own."""

from __future__ import annotations

from typing import Any

import torch

from nfvi.formula import Formula
from nfvi.guides import AnyGuide
from nfvi.utils import check_whole

__all__ = ["FittedGuide"]


class FittedGuide:
    """A guide q that is fitted, and takes no more gradients.

    Args:
        guide: q.
        settings: how it was made; ``seed`` is read.
    """

    def __init__(self, guide: AnyGuide, settings: dict[str, Any]) -> None:
        self.guide = guide.requires_grad_(False).eval()
        self.settings = settings
        # A stream of its own, so that draws taken from a fit do not change how it is refined.
        self._generator = torch.Generator(guide.device).manual_seed(self.seed)

    @property
    def seed(self) -> int:
        """The seed that fixes the fit."""
        return int(self.settings["seed"])

    @property
    def formula(self) -> Formula:
        """The formula of the guide."""
        return self.guide.formula

    @property
    def dim(self) -> int:
        """d, the dimension of a draw: that of unconstrained space, or the number of columns."""
        return self.guide.dim

    def _stream(self, seed: int | None) -> torch.Generator:
        """A stream of draws that a seed fixes; ``None`` continues in the fit's own."""
        if seed is None:
            return self._generator
        check_whole("seed", seed, 0, 2**63 - 1)
        return torch.Generator(self.guide.device).manual_seed(seed)
