"""The units of data and those of a guide that was fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from nfvi.density.columns import far_out, robust_moments
from nfvi.density.data import Data

__all__ = ["BEND", "Standardization", "constant_columns", "moments"]

BEND = 5.0
"""Robust sds beyond which a column with cells far out is compressed: beyond almost any row of a
normal distribution, so that those keep their shape."""


@dataclass(frozen=True)
class Standardization:
    """Columns with mean 0 and sd 1 for the guide: z = (x − mean) / sd, in float64.

    In a column with cells far out, mean and sd would be those of the outliers. There, ``mean`` is
    the median and ``sd`` the robust sd of the rows, and z = (c(u) − m) / s for u = (x − mean) / sd:
    c compresses what is beyond b, c(u) = u up to |u| = b and sign(u) (b + log(1 + |u| − b)) beyond
    it, one to one and with a continuous slope, and m and s are mean and sd of the rows after that.

    Attributes:
        mean: (d).
        sd: (d).
        context_mean: (c); c = 0 without a context.
        context_sd: (c).
        bend: b, m and s (3, d), which are inf, 0 and 1 for columns without outliers; ``None`` where
            no column has any.
        context_bend: (3, c), the same.
    """

    mean: Tensor
    sd: Tensor
    context_mean: Tensor
    context_sd: Tensor
    bend: Tensor | None = None
    context_bend: Tensor | None = None

    @classmethod
    def of(
        cls, data: Data, held_out: Data | None = None, *, wanted: bool, robust: bool = True
    ) -> Standardization:
        """The scale of the rows (with the weights, divided by n); 0 and 1 if not ``wanted``.

        Args:
            data: the rows that centre and spread are those of.
            held_out: rows that may lie far out, too.
            wanted: whether to standardise.
            robust: whether outliers are compressed; without, mean and sd are those of all rows.
        """
        context = data.x[:, :0] if data.context is None else data.context
        if not wanted:
            zero, one = torch.zeros_like, torch.ones_like
            x, c = data.x[0], context[0]
            return cls(zero(x), one(x), zero(c), one(c))
        others = None if held_out is None else held_out.x
        contexts = None if held_out is None else held_out.context
        scale = _scale if robust else _plain_scale
        mean, sd, bend = scale(data.x, data.weights, others)
        context_mean, context_sd, context_bend = scale(context, data.weights, contexts)
        # A context that never changes may be given all the same.
        context_sd = torch.where(context_sd > 0, context_sd, 1.0)
        return cls(mean, sd, context_mean, context_sd, bend, context_bend)

    @property
    def log_scale(self) -> float:
        """Σ log sd: log q in the units of the data is lower by that, and by :meth:`log_bend`."""
        return float(self.sd.log().sum())

    def log_bend(self, x: Tensor) -> Tensor | None:
        """−log|det| (\\*) of the compression at points x (\\*, d); ``None`` where there is none."""
        if self.bend is None:
            return None
        begin, _, sd = self.bend.unbind()
        return ((self.scaled(x).abs() - begin).clamp_min(0).log1p() + sd.log()).sum(-1)

    def scaled(self, x: Tensor) -> Tensor:
        """(x − mean) / sd of points x (\\*, d), in float64: not compressed."""
        return (x.to(self.mean) - self.mean) / self.sd

    def of_points(self, x: Tensor, like: torch.dtype) -> Tensor:
        """Points x (\\*, d) for the guide."""
        return _compressed(self.scaled(x), self.bend).to(like)

    def of_context(self, context: Tensor, like: torch.dtype) -> Tensor:
        """Contexts (\\*, c) for the guide."""
        u = (context.to(self.mean) - self.context_mean) / self.context_sd
        return _compressed(u, self.context_bend).to(like)

    def to_data(self, z: Tensor) -> Tensor:
        """Points z (\\*, d) of the guide in the units of the data, float64."""
        return _expanded(z.to(self.mean), self.bend) * self.sd + self.mean

    def to(self, device: torch.device) -> Standardization:
        """The same on another device."""
        return Standardization(**{name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor of all that there are, for a file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


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


def _plain_scale(
    x: Tensor, weights: Tensor | None, others: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and sd (d) of the columns of x (n, d), and no bend."""
    return *moments(x, weights), None


def _scale(
    x: Tensor, weights: Tensor | None, others: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean, sd and bend (d) of the columns of x (n, d); ``others`` (m, d) may lie far out, too."""
    mean, sd = moments(x, weights)
    centre, spread = robust_moments(x, weights)
    outlying = (far_out(x if others is None else torch.cat([x, others]), centre, spread) > 0).any(0)
    if not bool(outlying.any()):
        return mean, sd, None
    mean, sd = torch.where(outlying, centre, mean), torch.where(outlying, spread, sd)
    begin = torch.where(outlying, BEND, torch.inf).to(mean)
    # A constant, which a context may have, is no outlier, and has sd 0.
    u = _squeezed((x - mean) / torch.where(sd > 0, sd, 1.0), begin)
    after_mean, after_sd = moments(u, weights)
    after_mean = torch.where(outlying, after_mean, 0.0)
    return mean, sd, torch.stack([begin, after_mean, torch.where(outlying, after_sd, 1.0)])


def _compressed(u: Tensor, bend: Tensor | None) -> Tensor:
    if bend is None:
        return u
    begin, mean, sd = bend.unbind()
    return (_squeezed(u, begin) - mean) / sd


def _squeezed(u: Tensor, begin: Tensor) -> Tensor:
    beyond = (u.abs() - begin).clamp_min(0)
    return u.clamp(-begin, begin) + u.sign() * beyond.log1p()


def _expanded(z: Tensor, bend: Tensor | None) -> Tensor:
    if bend is None:
        return z
    begin, mean, sd = bend.unbind()
    z = z * sd + mean
    beyond = (z.abs() - begin).clamp_min(0)
    return z.clamp(-begin, begin) + z.sign() * beyond.expm1()
