"""The data of a fit: which rows train it, which are held out, and their units."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.density.data import Data, read_data
from nfvi.density.likelihood import Rows
from nfvi.density.standardization import Standardization, constant_columns, moments
from nfvi.density.table import places_of

__all__ = ["Split", "fingerprint", "fraction_of", "make_rows", "split_data"]

_VALIDATION_STREAM = 1


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows held out, in the units of the data."""

    train: Data
    held_out: Data | None


def fraction_of(validation: Any) -> float | None:
    """The fraction of the rows to hold out, 0 for none; ``None`` where ``validation`` is data.

    Raises:
        ValueError: a number outside [0, 1).
    """
    if validation is None:
        return 0.0
    if isinstance(validation, Real | bool):
        if isinstance(validation, bool) or not 0 <= float(validation) < 1:
            raise ValueError(
                "validation must be a fraction of the rows from 0 to below 1, or held-out data"
                f" itself, got {validation!r}"
            )
        return float(validation)
    return None


def split_data(data: Data, validation: Any, seed: int) -> Split:
    """Hold out a random fraction of the rows, or what is given as held out.

    Args:
        data: all rows.
        validation: a fraction, or held-out data: x, or a tuple (x, context).
        seed: of the choice.

    Raises:
        ValueError: the held-out data are not like the others, columns do not vary, or too few
            rows are left to train on.
    """
    fraction = fraction_of(validation)
    if fraction is None:
        split = Split(data, _like(data, validation))
    else:
        order = np.random.default_rng((seed, 0, _VALIDATION_STREAM)).permutation(len(data))
        count = round(fraction * len(data))
        # In their own order, as after any other choice of rows.
        held, kept = (torch.from_numpy(np.sort(part)) for part in np.split(order, [count]))
        device = data.x.device
        held_out = data.take(held.to(device)) if count else None
        split = Split(data.take(kept.to(device)) if count else data, held_out)
    _check_train(split.train)
    return split


def _like(data: Data, validation: Any) -> Data:
    pair = isinstance(validation, tuple) and len(validation) == 2
    x, context = validation if pair else (validation, None)
    places = places_of(x, data.columns, "validation")
    held_out = read_data(x, context, name="validation")
    if held_out.x.shape[1] != data.x.shape[1]:
        raise ValueError(
            f"validation has {held_out.x.shape[1]} columns, and x has {data.x.shape[1]}"
        )
    widths = [0 if d.context is None else d.context.shape[1] for d in (data, held_out)]
    if widths[0] != widths[1]:
        raise ValueError(
            f"the contexts of x have {widths[0]} columns, and those of validation {widths[1]}: pass"
            " validation=(x, context) where there is context=, and x alone where there is none"
        )
    return held_out if places is None else replace(held_out, x=held_out.x[:, places])


def _check_train(data: Data) -> None:
    n, d = data.x.shape
    if n < 2:
        raise ValueError(
            f"only {n} row{'s' * (n != 1)} of x to train on, and a density needs at least 2; is"
            " validation= too large?"
        )
    constant = constant_columns(data)
    if constant:
        raise ValueError(
            f"column{'s' * (len(constant) > 1)} {', '.join(constant)} of x"
            f" {'do' if len(constant) > 1 else 'does'} not vary: there is no density along a"
            " constant; leave it out"
        )
    if n < d:
        warnings.warn(
            f"{n} rows to train on are fewer than the {d} columns: any flow can fit them too well."
            " The held-out likelihood tells how far to trust it",
            UserWarning,
            stacklevel=5,
        )
    elif (rank := _rank(data)) < d:
        warnings.warn(
            f"the {d} columns depend on each other linearly (rank {rank}): there is no density on"
            " them, and the likelihood grows without bound; leave out columns that others give",
            UserWarning,
            stacklevel=5,
        )


def _rank(data: Data) -> int:
    """Of the correlation matrix, as far as the rounding of float64 lets it be told."""
    mean, sd = moments(data.x)
    x = (data.x - mean) / sd
    values = torch.linalg.eigvalsh(x.T @ x / len(x))
    return int((values > 1e-12 * len(values) * values[-1]).sum())


def make_rows(data: Data, units: Standardization, like: Tensor) -> Rows:
    """Data as a guide sees them, in the dtype and on the device of ``like``."""
    context = None if data.context is None else units.of_context(data.context, like.dtype)
    weights, bend = None, units.log_bend(data.x)
    if data.weights is not None:
        weights = (data.weights / data.weights.mean()).to(like)
    return Rows(
        units.of_points(data.x, like.dtype).to(like.device),
        None if context is None else context.to(like.device),
        weights,
        None if bend is None else bend.to(like),
    )


def fingerprint(split: Split) -> str:
    """A digest of all numbers, by which a checkpoint knows its data again."""
    digest = hashlib.sha256()
    for data in (split.train, split.held_out):
        for part in () if data is None else (data.x, data.context, data.weights):
            shape = None if part is None else tuple(part.shape)
            digest.update(repr(shape).encode())
            if part is not None:
                digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
