"""From plain arrays to the object that the installed ArviZ works with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nfvi.utils.arviz_functions import from_dict

__all__ = ["dims_for", "to_inference_data"]


def to_inference_data(
    posterior: Mapping[str, Any],
    sample_stats: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    *,
    observed_data: Mapping[str, Any] | None = None,
    constant_data: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    predictions: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """The draws as what ``import arviz as az`` understands.

    With ArviZ 1.x, or without ``arviz``, this is an ``xarray.DataTree`` made by ``arviz_base``;
    with ArviZ 0.x (the last line for Python 3.11 and before), whose functions refuse a tree, it is
    an ``arviz.InferenceData`` with the same groups; its ``to_datatree()`` gives the tree. Both have
    ``to_netcdf(path)``, for which the extra ``nfvi[arviz]`` brings what is needed.
    Event dimensions without a name in ``dims`` are named ``<site>_dim_0``, ``<site>_dim_1``, ...
    and counted from 0.

    Args:
        posterior: site -> array or tensor (chains, draws, \\*event) on the constrained scale.
        sample_stats: name -> array or tensor (chains, draws), such as ``lp`` and ``log_q``.
        attrs: what is true of the whole run. It is stored on the root and on ``posterior`` in types
            that a netCDF file takes: numbers, strings and numeric arrays stay, booleans become 0 or
            1, other values become JSON text, and ``None`` is left out.
        observed_data: name -> array or tensor, the data that the density is given.
        constant_data: name -> array or tensor, what else the model reads.
        dims: name of an array, in any group -> the names of its event dimensions.
        coords: name of a dimension -> the labels along it; those of no array are left out.
        predictions: further groups, such as ``log_likelihood``, ``posterior_predictive``, ``prior``
            and ``prior_predictive``: name -> array or tensor (chains, draws, \\*event).

    Returns:
        ``xarray.DataTree`` or ``arviz.InferenceData``.

    Raises:
        ValueError: an array has no (chains, draws) in front, or two of them differ there.

    Reference:
        Kumar, Carroll, Hartikainen, Martin, "ArviZ a unified library for exploratory analysis of
        Bayesian models in Python", 2019.
    """
    groups = {"posterior": _arrays(posterior)}
    if sample_stats:
        groups["sample_stats"] = _arrays(sample_stats)
    _check_shapes(groups)
    groups |= {
        name: _arrays(data)
        for name, data in (("observed_data", observed_data), ("constant_data", constant_data))
        if data
    }
    groups |= {name: _arrays(arrays) for name, arrays in (predictions or {}).items() if arrays}
    stored = dict(map(_attr, (attrs or {}).items()))
    kept = {name: value for name, value in stored.items() if value is not None}
    return from_dict(groups, {"creation_library": "nfvi", **kept}, dims or {}, coords or {})


def dims_for(
    dims: Mapping[str, Sequence[str]],
    likelihood: Mapping[str, Tensor],
    statistics: Sequence[str],
) -> dict[str, Sequence[str]]:
    """Names of dimensions that suit all groups.

    An observed site has no more of them than its log-likelihood: that of a vector which is one
    observation has fewer dimensions than the data. A site that is called as a statistic has none,
    or it would give them to that.

    Args:
        dims: name of an array -> the names of its event dimensions.
        likelihood: observed site -> (n, \\*shape).
        statistics: names in ``sample_stats``.
    """
    short = {name: value.dim() - 1 for name, value in likelihood.items()}
    return {
        name: list(names)[: short.get(name)]
        for name, names in dims.items()
        if name not in statistics
    }


def _arrays(group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of any device as NumPy arrays."""
    return {
        name: x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        for name, x in group.items()
    }


def _check_shapes(groups: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Every array starts with the same (chains, draws)."""
    lead: tuple[int, ...] | None = None
    for group, arrays in groups.items():
        for name, x in arrays.items():
            if x.ndim < 2 or (lead is not None and x.shape[:2] != lead):
                raise ValueError(
                    f"{group}[{name!r}] has shape {x.shape}; expected (chains, draws, ...)"
                    + (f" with (chains, draws) = {lead}" if lead else "")
                )
            lead = x.shape[:2]


def _attr(item: tuple[str, Any]) -> tuple[str, Any]:
    """One attribute as a type that netCDF can store."""
    name, value = item
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool):
        return name, int(value)
    if value is None or isinstance(value, int | float | str):
        return name, value
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return name, value
    return name, json.dumps(value, default=str)
