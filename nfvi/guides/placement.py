"""Placement: the fixed affine map that puts a guide where the target is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Placement"]


class Placement(nn.Module):
    """A fixed map x = μ + L y behind the flows of a guide; log|det| = Σ log L_ii.

    The flows then work where the target has about mean 0 and covariance I, whatever its units and
    correlations, and one learning rate suits every target. μ and L are buffers: they are kept in
    the state dict and are not trained.

    Args:
        loc: μ (d).
        tril: L (d, d), lower triangular with a positive diagonal, or its diagonal (d) where the
            map is to stretch coordinates only.

    Raises:
        ValueError: the shapes do not go together, or the diagonal is not positive and finite.
    """

    loc: Tensor
    tril: Tensor
    undo: Tensor

    def __init__(self, loc: Tensor, tril: Tensor) -> None:
        super().__init__()
        if loc.dim() != 1 or tril.shape not in (loc.shape, loc.shape * 2):
            raise ValueError(
                f"a placement takes loc (d) and tril (d, d) or (d); got {tuple(loc.shape)} and"
                f" {tuple(tril.shape)}"
            )
        diagonal = _diagonal(tril)
        if not bool((diagonal.isfinite() & (diagonal > 0)).all()):
            raise ValueError("the diagonal of tril must be positive and finite")
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("tril", tril.detach().clone())
        # The inverse is kept: a product costs a step less than a triangular solve.
        self.register_buffer("undo", _inverse(tril.detach()))

    @classmethod
    def identity(
        cls,
        dim: int,
        *,
        diagonal: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Placement:
        """The map that does nothing, to load a state dict into.

        Args:
            dim: d.
            diagonal: whether L is kept as its diagonal.
            dtype: default ``torch.get_default_dtype()``.
            device: default the CPU.
        """
        ones = torch.ones(dim, dtype=dtype, device=device)
        return cls(torch.zeros_like(ones), ones if diagonal else ones.diag_embed())

    @property
    def diagonal(self) -> bool:
        """Whether L is kept as its diagonal."""
        return self.tril.dim() == 1

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (\\*, d) and log|det dx/dy| (\\*) at points y (\\*, d)."""
        x = y * self.tril if self.diagonal else y @ self.tril.mT
        return x + self.loc, self._ladj().expand(y.shape[:-1])

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y (\\*, d) and log|det dy/dx| (\\*) at points x (\\*, d)."""
        y = x - self.loc
        y = y * self.undo if self.diagonal else y @ self.undo.mT
        return y, -self._ladj().expand(x.shape[:-1])

    def _ladj(self) -> Tensor:
        diagonal = self.tril if self.diagonal else self.tril.diagonal(dim1=-2, dim2=-1)
        return diagonal.log().sum(-1)


def _diagonal(tril: Tensor) -> Tensor:
    return tril if tril.dim() == 1 else tril.diagonal()


def _inverse(tril: Tensor) -> Tensor:
    if tril.dim() == 1:
        return tril.reciprocal()
    eye = torch.eye(len(tril), dtype=tril.dtype, device=tril.device)
    inverse: Tensor = torch.linalg.solve_triangular(tril, eye, upper=False)
    return inverse
