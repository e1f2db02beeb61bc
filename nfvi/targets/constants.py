"""Arrays that a model is called with and that are no data: what ArviZ calls constant data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_array", "constants_among"]


def constants_among(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    observed: Mapping[str, np.ndarray],
    sites: Collection[str],
) -> dict[str, np.ndarray]:
    """The tensors and arrays among the arguments of a model that are no data, by name.

    Args:
        model: with or without handlers of NumPyro around it.
        args: its positional arguments.
        kwargs: its keyword arguments; defaults are added.
        observed: the data by site; an argument that equals one is left out.
        sites: whose names are left out too, as ArviZ would give them the dimensions of the site.
    """
    while (inner := getattr(model, "fn", None)) is not None:  # a handler of NumPyro around it
        model = inner
    try:
        bound = inspect.signature(model).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return {}
    bound.apply_defaults()
    arrays = {
        name: as_array(value)
        for name, value in bound.arguments.items()
        if hasattr(value, "__array__") and not isinstance(value, np.generic)
    }
    return {
        name: value
        for name, value in arrays.items()
        if name not in sites and not any(_same(value, data) for data in observed.values())
    }


def as_array(value: Any) -> np.ndarray:
    """A tensor, or an array of NumPy or JAX, as one of NumPy."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether an argument is the data of a site, perhaps in another dtype."""
    if a.shape != b.shape or "O" in (a.dtype.kind, b.dtype.kind):
        return False
    wide = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return torch.allclose(*wide, rtol=1e-6, atol=0.0, equal_nan=True)
