"""A Gaussian as a guide of the formula scale-loc or tril."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.guides import Guide

__all__ = ["gaussian_guide", "gaussian_of"]


@torch.no_grad()
def gaussian_guide(loc: Tensor, tril: Tensor, dtype: torch.dtype) -> Guide:
    """The guide ``tril`` that is N(μ, L Lᵀ), or ``scale-loc`` where L is diagonal.

    Args:
        loc: μ (d).
        tril: L (d, d), lower triangular with a positive diagonal, or its diagonal (d).
        dtype: of the guide; its device is that of ``loc``.
    """
    flat = tril.dim() == 1
    formula = "scale-loc" if flat else "tril"
    # It draws noise, to be multiplied by 0: not from the generator that everyone shares.
    nothing = torch.Generator().manual_seed(0)
    guide = Guide(formula, len(loc), jitter=0.0, generator=nothing, dtype=dtype, device=loc.device)
    values = dict(guide.named_parameters())
    diagonal = tril if flat else tril.diagonal()
    # The inverse of softplus, which does not overflow for large values.
    rho = diagonal + torch.log(-torch.expm1(-diagonal))
    values["flows.0.rho"].copy_(rho)
    values["flows.1.loc" if flat else "flows.0.loc"].copy_(loc)
    if not flat:
        rows, columns = torch.tril_indices(len(loc), len(loc), -1, device=tril.device)
        values["flows.0.lower"].copy_((tril / diagonal)[rows, columns])
    return guide


@torch.no_grad()
def gaussian_of(guide: Guide) -> tuple[Tensor, Tensor]:
    """μ (d) and L (d, d), float64, of a guide whose map is affine, such as those made here."""
    points = torch.eye(guide.dim, dtype=guide.dtype, device=guide.device)
    loc = guide.transform(torch.zeros_like(points[:1]))[0].double()[0]
    columns: Tensor = guide.transform(points)[0].double() - loc
    return loc, columns.T.contiguous()
