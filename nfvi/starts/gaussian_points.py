"""Draws of several Gaussians side by side, and what is known of a target at them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Points", "log_q", "place"]


@dataclass(frozen=True)
class Points:
    """Draws of S Gaussians: noise and score (S, n, d), log p − log q and whether finite (S, n)."""

    noise: Tensor
    score_function: Tensor
    log_ratio: Tensor
    usable: Tensor

    def score(self) -> Tensor:
        """Half the mean and half the median of log p − log q (S), over the usable draws."""
        values = torch.where(self.usable, self.log_ratio, torch.nan)
        return 0.5 * (values.nanmean(1) + values.nanmedian(1).values)

    def where(self, moved: Tensor, other: Points) -> Points:
        """These for the starts that have moved, and the other points for those that stay."""
        if bool(moved.all()) or self.noise.shape != other.noise.shape:
            return self
        wide, flat = moved[:, None, None], moved[:, None]
        return Points(
            torch.where(wide, self.noise, other.noise),
            torch.where(wide, self.score_function, other.score_function),
            torch.where(flat, self.log_ratio, other.log_ratio),
            torch.where(flat, self.usable, other.usable),
        )


def place(loc: Tensor, tril: Tensor, noise: Tensor) -> Tensor:
    """μ + L ε (S, n, d), of μ (S, d), L (S, d, d) or (S, d), and ε (n, d)."""
    moved = noise * tril.unsqueeze(1) if tril.dim() == 2 else noise @ tril.mT
    return loc.unsqueeze(1) + moved


def log_q(tril: Tensor, noise: Tensor) -> Tensor:
    """Log-density of the draws that ε (n, d) becomes (S, n), for L (S, d, d) or (S, d)."""
    diagonal = tril if tril.dim() == 2 else tril.diagonal(dim1=-2, dim2=-1)
    constant = 0.5 * noise.shape[-1] * math.log(2 * math.pi)
    return -0.5 * noise.square().sum(-1) - constant - diagonal.log().sum(-1, keepdim=True)
