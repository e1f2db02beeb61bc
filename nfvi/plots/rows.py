"""Rows of data beside draws of the density that was fitted to them, in any dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nfvi.plots.data_density import draws_of
from nfvi.plots.marginals import draw_columns
from nfvi.plots.protocols import DensityLike
from nfvi.plots.style import AnyFigure
from nfvi.utils import check_whole

__all__ = ["rows"]

MOST = 5


@dataclass(frozen=True)
class _Side:
    """Rows or draws, by the names of columns."""

    label: str
    sites: Mapping[str, Tensor]


def rows(
    fit: DensityLike,
    x: Any,
    *,
    context: Any = None,
    names: Sequence[str] | None = None,
    most: int = MOST,
    draws: int = 4000,
    fig: AnyFigure | None = None,
) -> AnyFigure:
    """Draws of a fit to data beside the data: marginals on the diagonal, pairs below it.

    Args:
        fit: what :meth:`nfvi.NFVI.fit_data` returned; of any dimension.
        x: the data (n, d).
        context: one context (c), where the fit has one; ``x`` should be the rows that belong to it.
        names: which columns; default those in which data and draws differ most. Columns without
            names are ``x[0]``, ``x[1]``, ...
        most: how many to choose, at least 1.
        draws: of the fit, at least 8.
        fig: where to draw; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: a name that is not among the columns that vary, or data or context do not suit
            the fit.
    """
    check_whole("most", most, 1)
    check_whole("draws", draws, 8)
    if fit.context_dim and np.ndim(context) > 1:
        raise ValueError("a picture of draws is at one context (c)")
    data = fit.rows(x).cpu().double()
    drawn = draws_of(fit, draws, context)
    columns = fit.columns or tuple(f"x[{i}]" for i in range(fit.dim))
    sides = [
        _Side(f"{len(data):,} rows", dict(zip(columns, data.T, strict=True))),
        _Side(str(fit.formula), dict(zip(columns, drawn.T, strict=True))),
    ]
    return draw_columns(sides, _gaps(columns, data, drawn), "data", names, most, fig)


def _gaps(columns: Sequence[str], data: Tensor, drawn: Tensor) -> dict[str, float]:
    """How far apart data and draws are in each column that varies, in sds."""
    sd = data.std(0)
    gap = (drawn.mean(0) - data.mean(0)).abs() / sd
    ratio = (drawn.std(0) / sd - 1).abs()
    worst = gap.maximum(ratio).nan_to_num(float("inf")).tolist()
    varies = ((data != data[0]).any(0) & (sd > 0)).tolist()
    return {name: far for name, far, one in zip(columns, worst, varies, strict=True) if one}
