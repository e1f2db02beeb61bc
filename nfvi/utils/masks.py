"""NumPy's masked arrays and torch's masked tensors: a mask is refused, and never lost unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.masked import is_masked_tensor

__all__ = ["check_unmasked"]

SHOWN = 5


def check_unmasked(name: str, values: object) -> None:
    """Check that no cell of an argument is masked; an array whose mask hides nothing will do.

    Args:
        name: what messages call it.
        values: anything; a list or tuple is looked into one level deep, a mapping all the way.

    Raises:
        ValueError: a cell is masked; the message says in which rows.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            check_unmasked(f"{name}[{key!r}]", value)
        return
    mask = _mask(values)
    if mask is None or not mask.any():
        return
    if mask.ndim == 0:
        raise ValueError(f"{name} is a masked value, and a mask cannot be kept: give a number")
    rows = np.flatnonzero(mask.reshape(len(mask), -1).any(1)).tolist()
    first = ", ".join(map(str, rows[:SHOWN])) + (", …" if len(rows) > SHOWN else "")
    kept = "~np.ma.getmaskarray(x)" + (".any(axis=1)" if mask.ndim == 2 else "")
    raise ValueError(
        f"{name} has {len(rows):,} of {len(mask):,} rows with a masked cell, the first ones"
        f" {first}, and a mask cannot be kept: leave these rows out of every array that has them,"
        f" as with x[{kept}] for this x, or fill them in, as with x.filled(value)"
    )


def _mask(values: Any) -> np.ndarray | None:
    """Which cells, or which items of a list, are masked; ``None`` where nothing has a mask."""
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(np.ma.getmaskarray(values))
    if isinstance(values, Tensor):
        return ~values.get_mask().cpu().numpy() if is_masked_tensor(values) else None
    if isinstance(values, list | tuple):
        masks = [_mask(item) for item in values if isinstance(item, np.ma.MaskedArray | Tensor)]
        if any(mask is not None and mask.any() for mask in masks):
            return np.array([_hides(item) for item in values])
    return None


def _hides(item: object) -> bool:
    mask = _mask(item)
    return mask is not None and bool(mask.any())
