"""Draws by the names of their sites, and the mean and standard deviation of each scalar."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = ["COMPARED", "Sites", "moments"]

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
    columns = [np.asarray(sites[site]).reshape(-1, size) for site, size in COMPARED[name].items()]
    whole = np.concatenate(columns, axis=1)
    return whole.mean(0), whole.std(0, ddof=1)
