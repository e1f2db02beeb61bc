"""Rules of ``vmap`` for functions that take any dimensions in front."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["batch_first"]


def batch_first(
    info: Any, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]
) -> list[Tensor]:
    """The inputs with the mapped dimension first, expanded where an input was not mapped."""
    return [
        x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(inputs, in_dims, strict=True)
    ]
