"""A fit beside chains of the same target, in numbers and for a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.fit.scalars import scalars
from nfvi.mcmc import MCMCRun
from nfvi.targets import Target

__all__ = ["Beside", "Moments", "SideOf", "beside"]


@dataclass(frozen=True, eq=False)
class SideOf:
    """Draws of a target (n, d) on unconstrained space, and what they are called."""

    label: str
    target: Target
    draws: Tensor

    @cached_property
    def sites(self) -> Mapping[str, Tensor]:
        """The draws on the constrained scale: site -> (n, \\*event)."""
        with torch.no_grad():
            return self.target.constrain(self.draws)


@dataclass(frozen=True)
class Moments:
    """Of one scalar on one side."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Row:
    """One scalar on both sides, and what sets them apart in sds of the right one."""

    name: str
    left: Moments
    right: Moments
    mean_difference: float
    sd_ratio: float


@dataclass(frozen=True, eq=False)
class Beside:
    """A fit on the left and a run on the right.

    Attributes:
        left: draws of the fit.
        right: all draws of the run.
        text: what the run says of itself.
        exact: none; :func:`nfvi.compare` has them.
    """

    left: SideOf
    right: SideOf
    text: str
    exact: SideOf | None = None

    @cached_property
    def table(self) -> tuple[Row, ...]:
        """A row for every scalar that varies in the run."""
        pairs = zip(scalars(self.left.sites), scalars(self.right.sites), strict=True)
        rows = [_row(name, x.double(), y.double()) for (name, x), (_, y) in pairs]
        return tuple(row for row in rows if row.right.sd > 0)

    def __str__(self) -> str:
        return self.text


def beside(label: str, draws: Tensor, run: MCMCRun) -> Beside:
    """Draws of a fit beside those of a run.

    Args:
        label: the formula of the fit.
        draws: of the fit (n, d), on unconstrained space.
        run: of the same target.

    Raises:
        TargetError: the run has another dimension.
    """
    if run.target.dim != draws.shape[1]:
        raise TargetError(
            f"compare= is a run on {run.target.name!r} of {run.target.dim} dimensions, and the fit"
            f" has {draws.shape[1]}"
        )
    right = SideOf(run.kernel, run.target, run.draws.flatten(0, 1))
    return Beside(SideOf(label, run.target, draws), right, str(run))


def _row(name: str, x: Tensor, y: Tensor) -> Row:
    left, right = (Moments(float(v.mean()), float(v.std())) for v in (x, y))
    unit = right.sd or float("nan")
    return Row(name, left, right, (left.mean - right.mean) / unit, left.sd / unit)
