"""Many Gaussian guides as one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.guides.guide import Guide

__all__ = ["GaussianParts", "gaussian_parts"]

FORMULA, BASE = "tril", "normal"


@dataclass(frozen=True)
class GaussianParts:
    """K Gaussians x = μ_k + T_k (σ_k ⊙ u) for u ~ N(0, I), with T_k unit lower triangular.

    Attributes:
        loc: μ (K, d).
        unit: T (K, d, d).
        sigma: σ (K, d).
    """

    loc: Tensor
    unit: Tensor
    sigma: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (K, \\*) of each at points (\\*, d)."""
        points = x.reshape(-1, x.shape[-1])
        apart = points.mT.unsqueeze(0) - self.loc.unsqueeze(2)
        turned = torch.linalg.solve_triangular(self.unit, apart, upper=False, unitriangular=True)
        # Not turned / σ: the gradient of that has σ² below, which underflows earlier.
        log_sigma = self.sigma.log()
        u = turned * (-log_sigma).exp().unsqueeze(2)
        volume = log_sigma.sum(1) + 0.5 * x.shape[-1] * math.log(2 * math.pi)
        logs: Tensor = -0.5 * u.square().sum(1) - volume.unsqueeze(1)
        return logs.reshape(len(logs), *x.shape[:-1])

    def place(self, u: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, d), and log|det dx/du| (n), of u (n, d) in the components (n)."""
        sigma = self.sigma[which]
        turned = self.unit[which] @ (sigma * u).unsqueeze(2)
        return self.loc[which] + turned.squeeze(2), sigma.log().sum(1)


def gaussian_parts(guides: Sequence[Guide]) -> GaussianParts | None:
    """The guides as one batch, differentiable in their parameters.

    ``None`` unless there are several, each of the formula ``tril`` on a normal base without a
    placement.
    """
    if len(guides) < 2 or not all(map(_is_plain, guides)):
        return None
    layers = [guide.flows[0] for guide in guides]
    loc, rho, lower = (
        torch.stack([layer.get_parameter(name) for layer in layers])
        for name in ("loc", "rho", "lower")
    )
    sigma = torch.nn.functional.softplus(rho).clamp_min(torch.finfo(rho.dtype).tiny)
    rows, columns = torch.tril_indices(loc.shape[1], loc.shape[1], -1, device=loc.device)
    unit = torch.eye(loc.shape[1], dtype=loc.dtype, device=loc.device).repeat(len(loc), 1, 1)
    unit[:, rows, columns] = lower
    return GaussianParts(loc, unit, sigma)


def _is_plain(guide: Guide) -> bool:
    known = str(guide.formula) == FORMULA and str(guide.base) == BASE
    return known and guide.placement is None
