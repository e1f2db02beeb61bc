"""Points and contexts that a fitted density is asked about, checked against its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.density.data import numbers, read_data
from nfvi.density.table import places_of
from nfvi.utils import check_unmasked

__all__ = ["Points", "read_context", "read_points"]


@dataclass(frozen=True)
class Points:
    """Rows to be scored.

    Attributes:
        x: (n, d), float64.
        tensor: whether they came as a tensor.
        kind: the floating-point dtype of what came, or ``None``.
    """

    x: Tensor
    tensor: bool
    kind: torch.dtype | None

    def like(self, values: Tensor) -> Any:
        """Values (n) in the type that the points came in."""
        values = values.to(self.kind or torch.get_default_dtype())
        return values if self.tensor else values.cpu().numpy()


def read_points(x: Any, dim: int, columns: tuple[str, ...] | None) -> Points:
    """Rows (n, d), or (n) for d = 1, to be scored; those of a table by the names of its columns.

    Raises:
        TypeError: they are not real numbers.
        ValueError: they have another width or other columns than the data, or NaN or inf.
    """
    places = places_of(x, columns)
    one_row = np.ndim(x) == 1 if not isinstance(x, Tensor) else x.dim() == 1
    if one_row and dim > 1:
        raise ValueError(
            f"x has shape {tuple(np.shape(x))}, and this fit needs (n, {dim}): one row is"
            " x.reshape(1, -1)"
        )
    data = read_data(x)
    if data.x.shape[1] != dim:
        raise ValueError(
            f"x has {data.x.shape[1]} columns, and the data of this fit had {dim}: (n, {dim})"
        )
    return Points(data.x if places is None else data.x[:, places], data.tensor, data.kind)


def read_context(context: Any, width: int, batch: torch.Size | None) -> Tensor | None:
    """Contexts (\\*, c), or one (c).

    Args:
        context: an array, tensor or table; for c = 1 also numbers (\\*).
        width: c; 0 where there is no context.
        batch: the shape that they must be broadcast to; ``None`` for any.

    Raises:
        TypeError: they are not real numbers.
        ValueError: there should be one or none, its width or length is wrong, or cells are masked.
    """
    if width == 0:
        if context is not None:
            raise ValueError("this fit was made without a context: leave context= out")
        return None
    if context is None:
        raise ValueError(f"this fit needs context= with {width} column{'s' * (width > 1)}")
    check_unmasked("context", context)
    values = context if isinstance(context, Tensor) else numbers("context", context)
    plain = values.dim() < 2 or values.shape == batch
    if width == 1 and plain and values.shape[-1:] != (1,):
        values = values.unsqueeze(-1)
    if values.shape[-1:] != (width,):
        raise ValueError(
            f"context has shape {tuple(values.shape)}, and this fit needs (n, {width}), or one"
            f" context ({width},)"
        )
    if batch is not None and values.shape[:-1] not in (batch, torch.Size()):
        raise ValueError(
            f"context has {tuple(values.shape[:-1])} rows for points of shape {tuple(batch)}: give"
            " one for each, or one for all"
        )
    if not bool(values.isfinite().all()):
        raise ValueError("context has NaN or inf; missing values, None and NA, count as NaN")
    return values
