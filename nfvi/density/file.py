"""A fit to data as a file and back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.density.density import guide_of
from nfvi.density.quality import Quality, Scored
from nfvi.density.standardization import Standardization
from nfvi.density.validation import ValidationRecord
from nfvi.errors import FitError
from nfvi.guides import Guide
from nfvi.training import History
from nfvi.utils import over, read_file, under, write_file

__all__ = ["DensityRecord", "load_density", "save_density"]


@dataclass(frozen=True)
class DensityRecord:
    """What a file keeps of a fit to data: the arguments of :class:`nfvi.DensityFit`.

    Attributes:
        guide: q of standardised rows.
        standardization: mean and sd of each column.
        settings: how the fit was made.
        history: of the optimiser's steps.
        validation: the looks at the held-out rows, or ``None``.
        scored: the quality, and the log-likelihoods of the reference rows.
        stopped: why the fit ended.
        wall_time: seconds.
    """

    guide: Guide
    standardization: Standardization
    settings: dict[str, Any]
    history: History
    validation: ValidationRecord | None
    scored: Scored
    stopped: str
    wall_time: float


def save_density(fit: DensityRecord, path: str | os.PathLike[str]) -> None:
    """Write a fit; see :meth:`nfvi.DensityFit.save`."""
    scored, looks = fit.scored, fit.validation
    tensors = over("guide.", fit.guide.state_dict())
    tensors |= over("standardization.", fit.standardization.tensors())
    tensors |= over("history.", fit.history.state_dict())
    tensors["scores"] = scored.scores
    if scored.weights is not None:
        tensors["weights"] = scored.weights
    if looks is not None:
        tensors |= {"looks.steps": looks.steps, "looks.log_likelihood": looks.log_likelihood}
    values = {
        "settings": fit.settings,
        "stopped": fit.stopped,
        "wall_time": fit.wall_time,
        "quality": scored.quality.as_dict(),
        "best": None if looks is None else looks.best,
    }
    write_file(path, "density", tensors, values)


def load_density(
    path: str | os.PathLike[str], map_location: torch.device | str | None = None
) -> DensityRecord:
    """Read a fit; see :meth:`nfvi.DensityFit.load`."""
    tensors, values = read_file(path, "density", map_location)
    try:
        settings = values["settings"]
        history = History("log_likelihood")
        history.load_state_dict(under("history.", tensors))
        weights = tensors.get("weights")
        return DensityRecord(
            guide=guide_of(settings, under("guide.", tensors), map_location),
            standardization=Standardization(**under("standardization.", tensors)),
            settings=settings,
            history=history,
            validation=_looks(tensors, values["best"]),
            scored=Scored(
                Quality.from_dict(values["quality"]),
                tensors["scores"].cpu(),
                None if weights is None else weights.cpu(),
            ),
            stopped=values["stopped"],
            wall_time=values["wall_time"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FitError(f"{str(path)!r} is not a complete density ({error})") from error


def _looks(tensors: dict[str, Tensor], best: int | None) -> ValidationRecord | None:
    if best is None:
        return None
    looks = under("looks.", tensors)
    return ValidationRecord(looks["steps"].cpu(), looks["log_likelihood"].cpu(), best)
