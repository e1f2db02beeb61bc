"""What there is to beware of in the rows of a fit: outliers, and values that many rows share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nfvi.density.columns import FAR, far_out, robust_moments, spike_of
from nfvi.density.data import Data
from nfvi.density.split import Split
from nfvi.density.standardization import BEND, Standardization

__all__ = ["notes_on", "warn_of"]

SHOWN = 3


class _Cell(NamedTuple):
    """A cell far out: how many robust sds, in which row and column, in words."""

    off: float
    row: str
    column: str


def notes_on(split: Split, units: Standardization, *, own: bool, standardized: bool) -> list[str]:
    """Sentences about the rows of a fit; none about most.

    Args:
        split: the rows.
        units: their scale.
        own: whether the held-out rows were given by themselves.
        standardized: whether ``units`` are those of the rows.
    """
    found = []
    # A scale without a bend says that no cell is far out.
    if not standardized or units.bend is not None:
        found += _far(split, "x", own)
    if split.train.context is not None and (not standardized or units.context_bend is not None):
        found += _far(split, "context", own)
    notes = [_outliers(found, standardized)] if found else []
    return notes + _spikes(split.train)


def warn_of(notes: Sequence[str]) -> None:
    """Warn the caller of ``fit_data`` of each note."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=5)


def _far(split: Split, which: str, own: bool) -> list[_Cell]:
    train, held_out = split.train, split.held_out
    x = _part(train, which)
    centre, spread = robust_moments(x, train.weights)
    parts = [(train, which)]
    if held_out is not None:
        given = "validation" if which == "x" else "the context of validation"
        parts.append((held_out, given if own else which))
    off = far_out(torch.cat([_part(data, which) for data, _ in parts]), centre, spread)
    names = train.names if which == "x" else [str(i) for i in range(x.shape[1])]
    cells = []
    for piece, (data, label) in zip(off.split([len(d) for d, _ in parts]), parts, strict=True):
        for i, j in piece.nonzero().tolist():
            row = f"row {data.number(i)} of {label}"
            cells.append(_Cell(float(piece[i, j]), row, names[j]))
    return cells


def _part(data: Data, which: str) -> Tensor:
    return data.x if which == "x" or data.context is None else data.context


def _outliers(cells: list[_Cell], standardized: bool) -> str:
    farthest = sorted(cells, reverse=True)
    said = "; ".join(
        f"{c.row}, column {c.column}, {_amount(c.off)} robust sds" for c in farthest[:SHOWN]
    )
    more = "; …" if len(cells) > SHOWN else ""
    many = len(cells) > 1
    if standardized:
        done = (
            f"Such a column is scaled by its median and robust sd, and compressed beyond {BEND:.0f}"
            " of them, so that the other rows keep their scale."
        )
    else:
        done = "standardize=False leaves them as they are, and they can spoil the whole fit."
    return (
        f"{len(cells):,} cell{'s' * many} {'lie' if many else 'lies'} more than {FAR:.0f} robust"
        f" sds (interquartile range / 1.349) from the median: {said}{more}. {done} Leave the"
        f" row{'s' * many} out if {'they are mistakes' if many else 'it is a mistake'}"
    )


def _amount(off: float) -> str:
    return f"{off:,.0f}" if off < 1e6 else f"{off:.2g}"


def _spikes(data: Data) -> list[str]:
    found = [
        (name, spike)
        for name, column in zip(data.names, data.x.unbind(1), strict=True)
        if (spike := spike_of(column, data.weights)) is not None
    ]
    if not found:
        return []
    said = "; ".join(
        f"column {name}, where {100 * spike.share:.2g} % of the rows are {spike.value:g}"
        f" ({spike.distinct:,} distinct value{'s' * (spike.distinct > 1)})"
        for name, spike in found[:SHOWN]
    )
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return [
        f"many rows share a value in {said}{more}. A density can grow without bound there, and the"
        " likelihood with it. Leave such a column out, add noise as wide as the step between its"
        " values, as with x + rng.uniform(-0.5, 0.5, x.shape) for whole numbers, or make it the"
        " context"
    ]
