"""What a set of chains is worth: R-hat, effective sample sizes, and the names of scalars."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["ess", "rhat", "scalar_names"]

EssKind = Literal["bulk", "tail", "mean", "sd"]


def rhat(x: Tensor) -> Tensor:
    """Rank-normalised split R-hat of every component, the larger of the plain and the folded one.

    Args:
        x: draws (chains, draws, \\*event).

    Returns:
        (\\*event) float64 on the CPU; ``nan`` where fewer than two chains or four draws, or a
        component that never moves, leave it undefined.

    Reference:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner, "Rank-normalization, folding, and
        localization: an improved R-hat for assessing convergence of MCMC", 2021.
    """
    return _over_components(x, "rhat", method="rank")


def ess(x: Tensor, kind: EssKind = "bulk") -> Tensor:
    """Effective sample size of every component.

    Args:
        x: draws (chains, draws, \\*event).
        kind: for the bulk or the tails (5 and 95 %) of the rank-normalised draws, or for the plain
            mean or sd.

    Returns:
        (\\*event) float64 on the CPU; ``nan`` with fewer than four draws and for a component that
        never moves.

    Reference:
        As for :func:`rhat`.
    """
    prob = {"prob": (0.05, 0.95)} if kind == "tail" else {}
    return _over_components(x, "ess", method=kind, **prob)


def _over_components(x: Tensor, statistic: str, **options: object) -> Tensor:
    """An ArviZ array statistic over the two leading axes, ``nan`` where it is not defined."""
    from arviz_stats.base import array_stats

    event = x.shape[2:]
    columns = x.detach().double().cpu().reshape(*x.shape[:2], -1).numpy()
    values = np.full(columns.shape[2], np.nan)
    moving = (columns != columns[:1, :1]).any((0, 1)) & np.isfinite(columns).all((0, 1))
    if moving.any() and columns.shape[1] >= 4 and (columns.shape[0] >= 2 or statistic != "rhat"):
        # chains that all stand still at different places divide by zero: R-hat is infinite then
        with np.errstate(divide="ignore", invalid="ignore"):
            function = getattr(array_stats, statistic)
            values[moving] = function(columns[..., moving], chain_axis=0, draw_axis=1, **options)
    return torch.from_numpy(values).reshape(event)


def scalar_names(site: str, event: tuple[int, ...]) -> list[str]:
    """The names of the scalars of a site, the last index running fastest.

    >>> scalar_names("theta", (2,)), scalar_names("mu", ())
    (['theta[0]', 'theta[1]'], ['mu'])
    """
    indices = product(*map(range, event))
    return [f"{site}[{', '.join(map(str, index))}]" if index else site for index in indices]
