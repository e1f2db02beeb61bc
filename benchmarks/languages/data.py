"""The data of the four models, the same for every language."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["MODELS", "SCHOOLS", "Counties", "Trials", "counties", "returns", "trials"]

MODELS = ("schools", "counties", "logistic", "garch")
"""The names of the four models, which every language has."""

SCHOOLS = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}
"""Effects of coaching in eight schools and their standard errors.

Reference:
    Rubin (1981), Estimation in parallel randomized experiments.
"""


@dataclass(frozen=True)
class Counties:
    """Measurements in houses of several counties, as of radon.

    Attributes:
        county: (N) of each house, from 0.
        floor: (N) 1 where it was measured on the first floor, 0 in the basement.
        y: (N) logarithms of what was measured.
        number: of counties.
    """

    county: np.ndarray
    floor: np.ndarray
    y: np.ndarray
    number: int


@dataclass(frozen=True)
class Trials:
    """Yes or no, and what it depends on.

    Attributes:
        x: (N, 5) a column of ones and four of standard normal numbers.
        y: (N) 0 or 1.
    """

    x: np.ndarray
    y: np.ndarray


def counties(number: int = 20, houses: int = 250) -> Counties:
    """Simulated, from a fixed seed: between 1 and some 30 houses a county."""
    rng = np.random.default_rng(1)
    county = np.concatenate([np.arange(number), rng.geometric(0.12, houses - number) % number])
    floor = (rng.random(houses) < 0.2).astype(float)
    level = rng.normal(1.3, 0.35, number)
    y = level[county] - 0.7 * floor + rng.normal(0.0, 0.75, houses)
    return Counties(county, floor, y, number)


def trials(rows: int = 400) -> Trials:
    """Simulated, from a fixed seed."""
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(rows), rng.normal(size=(rows, 4))])
    p = 1 / (1 + np.exp(-x @ np.array([-0.5, 1.0, -0.7, 0.3, 0.0])))
    return Trials(x, (rng.random(rows) < p).astype(float))


def returns(length: int = 200) -> np.ndarray:
    """A GARCH(1, 1) series, simulated from a fixed seed."""
    rng = np.random.default_rng(3)
    y, variance = np.empty(length), 1.0
    for t in range(length):
        y[t] = 0.3 + variance**0.5 * rng.normal()
        variance = 0.3 + 0.3 * (y[t] - 0.3) ** 2 + 0.45 * variance
    return y
