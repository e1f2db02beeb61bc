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
from nfvi.density.table import Table
from nfvi.density.validation import ValidationRecord
from nfvi.guides import Guide
from nfvi.training import History, check_settings
from nfvi.utils import (
    Amount,
    Count,
    check_entries,
    complete,
    over,
    read_file,
    under,
    write_file,
)

__all__ = ["DensityRecord", "load_density", "save_density"]

REQUIRED = {
    "settings": Any,
    "stopped": str,
    "wall_time": Amount,
    "quality": Any,
    "best": Count | None,
}


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
    with complete(path, "density"):
        read = check_entries(values, REQUIRED)
        settings = read["settings"]
        check_settings(settings, "data")
        guide = guide_of(settings, under("guide.", tensors), map_location)
        history = History("log_likelihood")
        history.load_state_dict(under("history.", tensors))
        scores = _column(tensors, "scores")
        return DensityRecord(
            guide=guide,
            standardization=_units(under("standardization.", tensors), settings),
            settings=settings,
            history=history,
            validation=_looks(tensors, read["best"]),
            scored=Scored(
                Quality.from_dict(read["quality"]),
                scores,
                _column(tensors, "weights", len(scores)) if "weights" in tensors else None,
            ),
            stopped=read["stopped"],
            wall_time=read["wall_time"],
        )


def _units(tensors: dict[str, Tensor], settings: dict[str, Any]) -> Standardization:
    d, c = settings["dim"], settings["context_dim"]
    units = {
        name: _column(tensors, name, size, "standardization.")
        for name, size in (("mean", d), ("sd", d), ("context_mean", c), ("context_sd", c))
    }
    if not bool((units["sd"] > 0).all() & (units["context_sd"] > 0).all()):
        raise ValueError("its tensors 'standardization.sd' and 'context_sd' must be over 0")
    if settings["columns"] is not None and len(settings["columns"]) != d:
        raise ValueError(f"its entry settings.columns must have {d} names")
    Table.of_settings(settings)  # or draws could not be made
    # Only columns with outliers have them.
    for name, size in (("bend", d), ("context_bend", c)):
        if name in tensors:
            units[name] = _tensor(tensors, name, (3, size), "standardization.")
            begin, mean, sd = units[name].unbind()
            if not bool(((begin > 0) & mean.isfinite() & sd.isfinite() & (sd > 0)).all()):
                raise ValueError(
                    f"its tensor 'standardization.{name}' must hold begins over 0, finite means and"
                    " sds over 0"
                )
    return Standardization(**units)


def _looks(tensors: dict[str, Tensor], best: int | None) -> ValidationRecord | None:
    if best is None:
        return None
    values = _column(tensors, "looks.log_likelihood")
    steps = _column(tensors, "looks.steps", len(values), dtype=torch.int64)
    if best >= len(values):
        raise ValueError(f"its entry best is {best}, and it has {len(values)} looks")
    return ValidationRecord(steps, values, best)


def _column(
    tensors: dict[str, Tensor],
    name: str,
    size: int | None = None,
    prefix: str = "",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A tensor (n) by its name, on the CPU, of a dtype and, where that is known, of a length."""
    return _tensor(tensors, name, (size,), prefix, dtype)


def _tensor(
    tensors: dict[str, Tensor],
    name: str,
    shape: tuple[int | None, ...],
    prefix: str = "",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A tensor by its name, on the CPU, of a dtype and a shape; ``None`` is any size."""
    if name not in tensors:
        raise ValueError(f"its tensor {prefix + name!r} is not there")
    found = tensors[name]
    fits = found.dim() == len(shape) and all(
        size in (None, given) for size, given in zip(shape, found.shape, strict=True)
    )
    if not fits or found.dtype != dtype:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(
            f"its tensor {prefix + name!r} has shape {tuple(found.shape)} and {found.dtype}; it"
            f" must have ({wanted}{',' if len(shape) == 1 else ''}) and {dtype}"
        )
    return found.cpu()
