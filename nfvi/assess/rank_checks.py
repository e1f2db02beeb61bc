"""What the ranks of true values among draws say about each scalar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nfvi.assess.uniformity import Counts, holm, uniformity_p_values
from nfvi.utils import scalar_names

__all__ = ["LEVEL", "RankCheck", "check_ranks", "rank_columns"]

# False alarms over all scalars of a calibration (Holm): a correct sampler fails one in a hundred.
LEVEL = 0.01
# Standard errors: names the shape of a failure that is proven already, so that chance hardly
# counts.
SEEN = 2.5


@dataclass(frozen=True)
class RankCheck:
    """The ranks of one scalar, put on the scale from 0 to 1.

    Attributes:
        name: of the scalar.
        mean: of the ranks, 0.5 if they are uniform; more where the draws are too low.
        spread: their sd over that of uniform ranks; over 1 where the draws are too narrow.
        mean_z: the departure of the mean from 0.5, in standard errors.
        spread_z: the departure of the variance from that of uniform ranks, in standard errors.
        p_value: of the hypothesis that they are uniform, see
            :func:`nfvi.assess.uniformity.uniformity_p_values`.
        adjusted: the same for all scalars together, by Holm's method.
    """

    name: str
    mean: float
    spread: float
    mean_z: float
    spread_z: float
    p_value: float
    adjusted: float

    @property
    def passed(self) -> bool:
        """Whether nothing is proven, at a chance of 1 % for all scalars together."""
        return self.adjusted > LEVEL

    @property
    def words(self) -> str:
        """What is wrong with the draws, in words; nothing if nothing is proven."""
        if self.passed:
            return ""
        found = []
        if abs(self.mean_z) > SEEN:
            found.append("too low" if self.mean > 0.5 else "too high")
        if self.spread_z > SEEN:
            found.append("too narrow (∪)")
        # Ranks that crowd at one end are close together for that reason alone.
        elif self.spread_z < -SEEN and not found:
            found.append("too wide (∩)")
        return ", ".join(found) or "not uniform"


def check_ranks(
    ranks: Mapping[str, Tensor], draws: int, constant: Mapping[str, Tensor]
) -> tuple[RankCheck, ...]:
    """A check for each scalar that is not constant.

    Args:
        ranks: site -> (simulations, \\*event), from 0 to ``draws``.
        draws: L, among how many draws.
        constant: site -> (\\*event), scalars that never vary, as corners of a triangular matrix.
    """
    names, columns = rank_columns(ranks, constant)
    levels = (np.arange(draws + 1) + 0.5) / (draws + 1) - 0.5
    variance, fourth = (levels**2).mean(), (levels**4).mean()
    n = len(columns)
    p_values = uniformity_p_values(columns, draws)
    scaled = (columns + 0.5) / (draws + 1)
    means, variances = scaled.mean(0), scaled.var(0)
    mean_z = (means - 0.5) / math.sqrt(variance / n)
    # A single draw leaves two values, whose square is the same: no spread to speak of.
    error = math.sqrt((fourth - variance**2) / n)
    spread_z = (variances - variance) / error if draws > 1 else np.zeros_like(means)
    numbers = (means, np.sqrt(variances / variance), mean_z, spread_z, p_values, holm(p_values))
    return tuple(
        RankCheck(name, *map(float, row)) for name, *row in zip(names, *numbers, strict=True)
    )


def rank_columns(
    ranks: Mapping[str, Tensor], constant: Mapping[str, Tensor]
) -> tuple[list[str], Counts]:
    """Names and ranks of the scalars that vary: (simulations, scalars)."""
    names, columns = [], []
    for site, values in ranks.items():
        flat = values.reshape(len(values), -1).numpy()
        fixed = constant[site].flatten().tolist()
        for i, name in enumerate(scalar_names(site, tuple(values.shape[1:]))):
            if not fixed[i]:
                names.append(name.replace(" ", ""))
                columns.append(flat[:, i])
    return names, np.stack(columns, 1)
