"""The units of data and those of a guide that was fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from nfvi.density.data import Data

__all__ = ["Standardization", "constant_columns", "moments"]


@dataclass(frozen=True)
class Standardization:
    """Columns with mean 0 and sd 1 for the guide: z = (x − mean) / sd, in float64.

    Attributes:
        mean: (d).
        sd: (d).
        context_mean: (c); c = 0 without a context.
        context_sd: (c).
    """

    mean: Tensor
    sd: Tensor
    context_mean: Tensor
    context_sd: Tensor

    @classmethod
    def of(cls, data: Data, *, wanted: bool) -> Standardization:
        """Means and sds (with the weights, divided by n) of the rows; 0 and 1 if not ``wanted``."""
        context = data.x[:, :0] if data.context is None else data.context
        x_mean, x_sd = moments(data.x, data.weights)
        c_mean, c_sd = moments(context, data.weights)
        # A context that never changes may be given all the same.
        c_sd = torch.where(c_sd > 0, c_sd, 1.0)
        if wanted:
            return cls(x_mean, x_sd, c_mean, c_sd)
        zero, one = torch.zeros_like, torch.ones_like
        return cls(zero(x_mean), one(x_sd), zero(c_mean), one(c_sd))

    @property
    def log_scale(self) -> float:
        """Σ log sd: log q in the units of the data is lower by that."""
        return float(self.sd.log().sum())

    def of_points(self, x: Tensor, like: torch.dtype) -> Tensor:
        """Points x (\\*, d) for the guide."""
        return ((x.to(self.mean) - self.mean) / self.sd).to(like)

    def of_context(self, context: Tensor, like: torch.dtype) -> Tensor:
        """Contexts (\\*, c) for the guide."""
        return ((context.to(self.mean) - self.context_mean) / self.context_sd).to(like)

    def to_data(self, z: Tensor) -> Tensor:
        """Points z (\\*, d) of the guide in the units of the data, float64."""
        return z.to(self.mean) * self.sd + self.mean

    def to(self, device: torch.device) -> Standardization:
        """The same on another device."""
        return Standardization(*(value.to(device) for value in self.tensors().values()))

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def constant_columns(data: Data) -> Sequence[str]:
    """The names of columns in which all rows are equal, as far as float64 can tell."""
    _, sd = moments(data.x, data.weights)
    limit = torch.finfo(data.x.dtype).eps * data.x.abs().amax(0)
    equal = (data.x.amax(0) == data.x.amin(0)) | (sd <= limit)
    return [name for name, is_equal in zip(data.names, equal.tolist(), strict=True) if is_equal]


def moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and sd (d) of the columns of x (n, d), each row counted ``weights`` (n) times."""
    if weights is None:
        weights = x.new_ones(len(x))
    share = (weights / weights.sum()).unsqueeze(1)
    # In units of the largest number, whose square may be beyond the range of floats.
    unit = x.abs().amax(0).clamp_min(torch.finfo(x.dtype).tiny)
    x = x / unit
    mean = (share * x).sum(0)
    return mean * unit, (share * (x - mean).square()).sum(0).sqrt() * unit
