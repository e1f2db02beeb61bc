"""Draws by the names of their sites, and the mean and standard deviation of each scalar."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from nfvi.mcmc import ess

__all__ = ["COMPARED", "Sites", "moments", "noise"]

Sites: TypeAlias = dict[str, Any]
"""Arrays (n, *event) or (chains, draws, *event) by site."""

COMPARED = {
    "schools": {"mu": 1, "tau": 1, "theta": 8},
    "counties": {"m": 1, "s": 1, "b": 1, "sigma": 1, "a": 20},
    "logistic": {"beta": 5},
    "garch": {"mu": 1, "a0": 1, "a1": 1, "b1": 1},
}
"""The sites of each model that are compared, and how many scalars each is."""


def moments(name: str, sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of all scalars of a model, in one order."""
    whole = _columns(name, sites, (-1,))
    return whole.mean(0), whole.std(0, ddof=1)


def noise(name: str, chains: Sites) -> float:
    """The largest standard error of a mean of chains, in posterior sds: 1 / √ESS.

    Args:
        name: of the model.
        chains: arrays (chains, draws, *event) by site.
    """
    first = np.asarray(next(iter(chains.values())))
    whole = _columns(name, chains, first.shape[:2])
    return float(ess(torch.from_numpy(whole), "mean").min() ** -0.5)


def _columns(name: str, sites: Sites, lead: tuple[int, ...]) -> np.ndarray:
    """All scalars of a model, (*lead, K), in one order."""
    columns = [
        np.asarray(sites[site], dtype=float).reshape(*lead, size)
        for site, size in COMPARED[name].items()
    ]
    return np.concatenate(columns, axis=-1)
