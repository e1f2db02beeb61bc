"""The arguments of the models from the data sets of posteriordb, which are dicts of lists.

Each function takes the data as the database has them and leaves out what its model does not use.
All tensors are float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Arguments",
    "arma_data",
    "autoregression_data",
    "diamonds_data",
    "earnings_data",
    "eight_schools_data",
    "gp_data",
    "kidscore_data",
    "kilpisjarvi_data",
    "mesquite_data",
    "nes_data",
    "regression_data",
]

Data: TypeAlias = Mapping[str, Any]
Arguments: TypeAlias = dict[str, Any]


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _design(*columns: Tensor) -> Tensor:
    """A column of ones, then the columns given, each (N,)."""
    return torch.stack([torch.ones_like(columns[0]), *columns], dim=-1)


def _named(data: Data, *names: str) -> list[Tensor]:
    return [_tensor(data[name]) for name in names]


def arma_data(data: Data) -> Arguments:
    """The series."""
    return {"y": _tensor(data["y"])}


def autoregression_data(data: Data) -> Arguments:
    """The series and the order K."""
    return {"y": _tensor(data["y"]), "order": int(data["K"])}


def diamonds_data(data: Data) -> Arguments:
    """The predictors without their first column, which is all ones, and the response."""
    return {"x": _tensor(data["X"])[:, 1:], "y": _tensor(data["Y"])}


def earnings_data(data: Data) -> Arguments:
    """The logarithm of earnings on height, sex, and their product."""
    earn, height, male = _named(data, "earn", "height", "male")
    return {"x": _design(height, male, height * male), "y": earn.log()}


def eight_schools_data(data: Data) -> Arguments:
    """The effects and their standard errors."""
    return {"y": _tensor(data["y"]), "sigma": _tensor(data["sigma"])}


def gp_data(data: Data) -> Arguments:
    """The inputs and the outputs; the counts ``k`` belong to another model."""
    return {"x": _tensor(data["x"]), "y": _tensor(data["y"])}


def kidscore_data(data: Data) -> Arguments:
    """The score of a child on whether the mother went to high school, and on her IQ."""
    return {
        "x": _design(*_named(data, "mom_hs", "mom_iq")),
        "y": _tensor(data["kid_score"]),
    }


def kilpisjarvi_data(data: Data) -> Arguments:
    """The years, the temperatures, and the priors, which are part of the data set."""
    return {
        "x": _tensor(data["x"]),
        "y": _tensor(data["y"]),
        "intercept": (float(data["pmualpha"]), float(data["psalpha"])),
        "slope": (float(data["pmubeta"]), float(data["psbeta"])),
    }


def mesquite_data(data: Data) -> Arguments:
    """The weight of the leaves of a bush on six measurements, in raw units."""
    names = ["diam1", "diam2", "canopy_height", "total_height", "density", "group"]
    return {"x": _design(*_named(data, *names)), "y": _tensor(data["weight"])}


def nes_data(data: Data) -> Arguments:
    """The party identification on eight predictors; the youngest of four ages is the baseline."""
    ideology, race, education, gender, income = _named(
        data, "real_ideo", "race_adj", "educ1", "gender", "income"
    )
    age = _tensor(data["age_discrete"])
    older = [(age == level).double() for level in (2, 3, 4)]
    return {
        "x": _design(ideology, race, *older, education, gender, income),
        "y": _tensor(data["partyid7"]),
    }


def regression_data(data: Data) -> Arguments:
    """The design, without an intercept, and the response."""
    return {"x": _tensor(data["X"]), "y": _tensor(data["y"])}
