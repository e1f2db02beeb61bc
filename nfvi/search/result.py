"""What a search for missed mass has found, and what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nfvi.utils import Count, align, check_entries, short, wrapped

__all__ = ["LEAST_SHARE", "MissedMass", "Place"]

LEAST_SHARE = 0.03
"""Missed mass over this is reported: a mean may be off by as much of the distance to it."""
ROWS_SHOWN = 10
ENTRIES = {
    "places": tuple[Any, ...],
    "share": float,
    "share_se": float,
    "log_evidence": float,
    "guide_log_evidence": float,
    "draws": Count,
    "starts": Count,
    "reach": float,
    "batched_evaluations": Count,
    "gradient_evaluations": Count,
    "cut": bool,
    "prior": bool,
    "crowded": bool,
    "improper": bool,
}
"""What a file holds of a search."""
COORDINATES_SHOWN = 4
ROUNDING = 1e-5
"""Of the coordinates shown: ascents end where log p gains 1e-6 nats or less."""


@dataclass(frozen=True)
class Place:
    """A place where a target has mass that a guide does not cover.

    Attributes:
        z: the point (d) of unconstrained space.
        log_p: of the target there.
        share: of all the mass of the target, as far as it is known.
        log_excess: log p − log q − log Z there; 0 where the guide is right.
        tril: L (d, d) of the Gaussian with the curvature of log p there; ``None`` after loading.
        mode: whether it is a mode, and no point of a ridge or a tail where an ascent came to rest.
    """

    z: Tensor = field(repr=False)
    log_p: float
    share: float
    log_excess: float
    tril: Tensor | None = field(default=None, repr=False)
    mode: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the Gaussian."""
        return {
            "z": self.z.tolist(),
            "log_p": self.log_p,
            "share": self.share,
            "log_excess": self.log_excess,
            "mode": self.mode,
        }

    @classmethod
    def from_dict(cls, values: Any, place: str = "place") -> Place:
        """What :meth:`as_dict` wrote.

        Raises:
            ValueError: an entry is missing or wrong; the message names it after ``place``.
        """
        hints = {
            "z": tuple[float, ...],
            "log_p": float,
            "share": float,
            "log_excess": float,
            "mode": bool,
        }
        if isinstance(values, dict):  # older files do not say it
            values = {"mode": False, **values}
        read = check_entries(values, hints, place=place)
        return cls(**{**read, "z": torch.tensor(read["z"], dtype=torch.float64)})


@dataclass(frozen=True)
class MissedMass:
    """What :meth:`nfvi.Fit.search` found.

    Attributes:
        places: where mass is missed, the largest share first.
        share: of the target's mass that the guide misses, estimated, in [0, 1).
        share_se: its standard error, by importance sampling at the places.
        log_evidence: log Z with that mass, nats.
        guide_log_evidence: log Z as the guide alone sees it.
        draws: wide draws at which log p was looked at.
        starts: ascents from the best of them.
        reach: how many sds the widest of the draws reach, of the guide and of the prior; of N(0, I)
            where there is no prior.
        batched_evaluations: batches of gradients, one after the other.
        gradient_evaluations: points at which the gradient was taken.
        cut: whether it was ended early, by a budget.
        prior: whether the target has a prior, around which half of the draws were.
        crowded: whether there are more modes than a search looks at, 64.
        improper: whether log p is as high as anywhere 10⁵ sds away.
        extent: between which coordinates (d) all but a few of the ascents ended, those at places
            that the guide knows too; ``None`` without ascents, and after loading.
    """

    places: tuple[Place, ...]
    share: float
    share_se: float
    log_evidence: float
    guide_log_evidence: float
    draws: int
    starts: int
    reach: float
    batched_evaluations: int
    gradient_evaluations: int
    cut: bool = False
    prior: bool = False
    crowded: bool = False
    improper: bool = False
    extent: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)

    @property
    def clean(self) -> bool:
        """Whether at most 3 % of the mass was found outside the guide; this is no proof.

        A crowded search is not clean: its share is of the modes that it looked at. Nor is one of an
        improper target, which has no mass to have a share of.
        """
        return self.share <= LEAST_SHARE and not self.crowded and not self.improper

    def __str__(self) -> str:
        lines = wrapped(self.describe())
        if not self.clean and self.places and not self.improper:
            lines += ["", *_table(self.places).splitlines()]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = {name: getattr(self, name) for name in ENTRIES}
        return {**values, "places": [place.as_dict() for place in self.places]}

    @classmethod
    def from_dict(cls, values: Any) -> MissedMass:
        """What :meth:`as_dict` wrote.

        Raises:
            ValueError: an entry is missing or wrong; the message names it.
        """
        if isinstance(values, dict):  # older files do not say it
            values = {"crowded": False, "improper": False, **values}
        read = check_entries(values, ENTRIES, place="missed")
        places = tuple(
            Place.from_dict(place, f"missed.places[{k}]") for k, place in enumerate(read["places"])
        )
        return cls(**{**{name: read[name] for name in ENTRIES}, "places": places})

    def describe(self) -> str:
        """What was searched and found, in a few sentences."""
        around = "the prior" if self.prior else "N(0, I)"
        where = (
            f"{self.draws:,} draws out to {self.reach:g} sds of the guide and of {around}, and"
            f" {self.starts:,} ascents from the best of them"
        )
        cut = " The search was cut short by the budget." if self.cut else ""
        if math.isnan(self.share):
            return f"The guide has no log evidence to compare with: nothing was searched.{cut}"
        if self.improper:
            return (
                "Along a line log p is as high as anywhere, out to 100,000 sds of the guide and as"
                f" far as was looked: the target is improper.{cut}"
            )
        if self.clean and not self.starts:
            return (
                f"No mass was found that the guide misses in {self.draws:,} wide draws, which says"
                f" little in so many dimensions: no ascents are made there.{cut}"
            )
        if self.clean:
            return (
                f"No mass was found that the guide misses, in {where}; narrower or farther parts"
                f" cannot be excluded.{cut}"
            )
        if self.crowded:
            return (
                f"The guide has almost none of the mass at {len(self.places)} modes and more, found"
                f" by {where}; {self.share:.0%} of the mass was counted there, and what lies at the"
                f" others was not.{cut}"
            )
        places = "one place" if len(self.places) == 1 else f"{len(self.places)} places"
        return (
            f"The guide misses about {self.share:.0%} of the mass: it has almost none at {places}"
            f" found by {where}. With them the log evidence is {self.log_evidence:.3f} and not"
            f" {self.guide_log_evidence:.3f}; more may be missed.{cut}"
        )


def _table(places: tuple[Place, ...]) -> str:
    header = ["place", "log p", "share", "log p/(q Z)"]
    rows = [
        [_point(place.z), short(place.log_p, 5), f"{place.share:.1%}", f"{place.log_excess:.1f}"]
        for place in places[:ROWS_SHOWN]
    ]
    more = len(places) - len(rows)
    return align(header, rows) + (f"\n... and {more} more in .places" if more else "")


def _point(z: Tensor) -> str:
    # What is nothing beside the largest coordinate is the rounding of an ascent.
    noise = ROUNDING * max(1.0, float(z.abs().max()))
    z = torch.where(z.abs() < noise, 0.0, z)
    shown = ", ".join(short(float(x), 3) for x in z[:COORDINATES_SHOWN])
    return f"({shown}{', …' if len(z) > COORDINATES_SHOWN else ''})"
