"""A fit to data as a file and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfvi.density.density import guide_of
from nfvi.density.quality import Quality, Scored
from nfvi.density.standardization import Standardization
from nfvi.density.validation import ValidationRecord
from nfvi.errors import FitError
from nfvi.training import History
from nfvi.utils import read_file, write_file

if TYPE_CHECKING:
    from nfvi.density.fit import DensityFit

__all__ = ["load_density", "save_density"]


def save_density(fit: DensityFit, path: str | os.PathLike[str]) -> None:
    """Write a fit; see :meth:`nfvi.DensityFit.save`."""
    scored, looks = fit._scored, fit.validation
    tensors = _over("guide.", fit.guide.state_dict())
    tensors |= _over("standardization.", fit.standardization.tensors())
    tensors |= _over("history.", fit.history.state_dict())
    tensors["scores"] = scored.scores
    if scored.weights is not None:
        tensors["weights"] = scored.weights
    if looks is not None:
        tensors |= {"looks.steps": looks.steps, "looks.log_likelihood": looks.log_likelihood}
    values = {
        "settings": fit.settings,
        "stopped": fit.stopped,
        "wall_time": fit.wall_time,
        "quality": fit.quality.as_dict(),
        "best": None if looks is None else looks.best,
    }
    write_file(path, "density", tensors, values)


def load_density(
    path: str | os.PathLike[str], map_location: torch.device | str | None
) -> dict[str, Any]:
    """The arguments of :class:`nfvi.DensityFit` from a file; see :meth:`nfvi.DensityFit.load`."""
    tensors, values = read_file(path, "density", map_location)
    try:
        settings = values["settings"]
        history = History("log_likelihood")
        history.load_state_dict(_under("history.", tensors))
        weights = tensors.get("weights")
        return {
            "guide": guide_of(settings, _under("guide.", tensors), map_location),
            "standardization": Standardization(**_under("standardization.", tensors)),
            "settings": settings,
            "history": history,
            "validation": _looks(tensors, values["best"]),
            "scored": Scored(
                Quality.from_dict(values["quality"]),
                tensors["scores"].cpu(),
                None if weights is None else weights.cpu(),
            ),
            "stopped": values["stopped"],
            "wall_time": values["wall_time"],
        }
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FitError(f"{str(path)!r} is not a complete density ({error})") from error


def _looks(tensors: dict[str, Tensor], best: int | None) -> ValidationRecord | None:
    if best is None:
        return None
    looks = _under("looks.", tensors)
    return ValidationRecord(looks["steps"].cpu(), looks["log_likelihood"].cpu(), best)


def _over(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
