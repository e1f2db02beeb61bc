"""What chains say of a scalar and are worth: moments, R-hat, effective sample sizes; names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nfvi.utils import arviz_functions, hdi

__all__ = ["ess", "mcse", "mean_sd_hdi", "rhat"]

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
    return _over_components(x, arviz_functions.rhat, min_chains=2)


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
    return _over_components(x, lambda draws: arviz_functions.ess(draws, kind), min_chains=1)


def mcse(x: Tensor, kind: Literal["mean", "sd"]) -> Tensor:
    """Monte-Carlo standard error of the mean or the sd of every component.

    Args:
        x: draws (chains, draws, \\*event).
        kind: of which.

    Returns:
        (\\*event) float64 on the CPU; ``nan`` as for :func:`ess`.

    Reference:
        As for :func:`rhat`.
    """
    return _over_components(x, lambda draws: arviz_functions.mcse(draws, kind), min_chains=1)


def _over_components(
    x: Tensor, statistic: Callable[[np.ndarray], np.ndarray], *, min_chains: int
) -> Tensor:
    """An ArviZ statistic over the two leading axes, ``nan`` where it is not defined."""
    event = x.shape[2:]
    columns = x.detach().double().cpu().reshape(*x.shape[:2], -1).numpy()
    values = np.full(columns.shape[2], np.nan)
    moving = (columns != columns[:1, :1]).any((0, 1)) & np.isfinite(columns).all((0, 1))
    if moving.any() and columns.shape[1] >= 4 and columns.shape[0] >= min_chains:
        # chains that all stand still at different places divide by zero: R-hat is infinite then
        with np.errstate(divide="ignore", invalid="ignore"):
            values[moving] = statistic(columns[..., moving])
    return torch.from_numpy(values).reshape(event)


def mean_sd_hdi(x: Tensor) -> list[float]:
    """Mean, sd, and both ends of the 94 % interval of highest density of draws (n), float64.

    The sd is that of a sample, with n − 1 in the denominator, and nan for a single draw.
    """
    sd = float(x.std()) if len(x) > 1 else math.nan
    return [float(x.mean()), sd, *hdi(x.numpy())]
