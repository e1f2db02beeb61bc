"""A fit as a file and back."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nfvi.errors import FitError, TargetError
from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.path import ClimbPath
from nfvi.fit.restarts import Restart
from nfvi.guides import AnyGuide, guide_from_header, header_of_guide
from nfvi.search import MissedMass
from nfvi.targets import Target, as_target
from nfvi.training import History
from nfvi.utils import over, read_file, under, write_file

__all__ = ["FitRecord", "load_fit", "save_fit", "target_for"]


@dataclass(frozen=True)
class FitRecord:
    """What a file keeps of a fit: the arguments of :class:`nfvi.Fit` but for its target.

    Attributes:
        guide: q.
        history: of the optimiser's steps.
        restarts: all of them.
        settings: how the fit was made.
        stopped: why it ended.
        wall_time: seconds.
        gradient_evaluations: points at which the target's gradient was taken.
        batched_evaluations: batches in which it was taken; ``None`` in files of earlier versions.
        diagnostics: of the guide.
        path: the rungs of a climb, or ``None``.
        missed: of the search for mass that the guide misses, or ``None``.
        verified: whether ``verify()`` passed; ``None`` where it was not run.
        log_normalizer: log Z, where the target knew it.
    """

    guide: AnyGuide
    history: History
    restarts: tuple[Restart, ...]
    settings: dict[str, Any]
    stopped: str
    wall_time: float
    gradient_evaluations: int
    batched_evaluations: int | None
    diagnostics: Diagnostics
    path: ClimbPath | None
    missed: MissedMass | None = None
    verified: bool | None = None
    log_normalizer: float | None = None


def save_fit(fit: FitRecord, path: str | os.PathLike[str], verdict: str) -> None:
    """Write a fit, with its verdict for those who read the header; see :meth:`nfvi.Fit.save`."""
    tensors = over("guide.", fit.guide.state_dict())
    tensors |= over("history.", fit.history.state_dict())
    values = {
        "settings": fit.settings,
        "guide": header_of_guide(fit.guide),
        "stopped": fit.stopped,
        "wall_time": fit.wall_time,
        "gradient_evaluations": fit.gradient_evaluations,
        "batched_evaluations": fit.batched_evaluations,
        "restarts": [asdict(restart) for restart in fit.restarts],
        "path": None if fit.path is None else fit.path.as_dict(),
        "diagnostics": fit.diagnostics.as_dict(),
        "missed": None if fit.missed is None else fit.missed.as_dict(),
        "verified": fit.verified,
        "log_normalizer": fit.log_normalizer,
        "verdict": verdict,
    }
    write_file(path, "fit", tensors, values)


def load_fit(
    path: str | os.PathLike[str], map_location: torch.device | str | None = None
) -> FitRecord:
    """Read a fit; see :meth:`nfvi.Fit.load`."""
    tensors, values = read_file(path, "fit", map_location)
    try:
        settings = values["settings"]
        # Files of earlier versions hold guides that the settings describe in full.
        header = values.get("guide", settings)
        guide = guide_from_header(header, under("guide.", tensors), map_location)
        _check_settings(settings, guide)
        history = History()
        history.load_state_dict(under("history.", tensors))
        return FitRecord(
            guide=guide,
            history=history,
            restarts=tuple(Restart(**restart) for restart in values["restarts"]),
            settings=settings,
            stopped=values["stopped"],
            wall_time=values["wall_time"],
            gradient_evaluations=values["gradient_evaluations"],
            batched_evaluations=values.get("batched_evaluations"),
            diagnostics=Diagnostics(**values["diagnostics"]),
            path=ClimbPath.from_dict(values["path"]) if values.get("path") else None,
            missed=MissedMass.from_dict(values["missed"]) if values.get("missed") else None,
            verified=values.get("verified"),
            log_normalizer=values.get("log_normalizer"),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FitError(f"{str(path)!r} is not a complete fit ({error})") from error


def target_for(fit: FitRecord, target: Any) -> Target | None:
    """What a user gave as the target of a fit that was read, checked; ``None`` for none.

    Raises:
        TargetError: it has another dimension, or is none at all.
    """
    if target is None:
        return None
    settings = fit.settings
    bare = not isinstance(target, Target) and not settings["named"]
    made = as_target(target, dim=settings["dim"] if bare else None)
    if made.dim != settings["dim"]:
        raise TargetError(
            f"this fit has dim={settings['dim']}, and target {made.name!r} has dim={made.dim}"
        )
    made.check(fit.guide.dtype, fit.guide.device)
    return made


def _check_settings(settings: dict[str, Any], guide: AnyGuide) -> None:
    """Settings and guide must be of one fit: a fit that goes on reads both."""
    described = {
        "formula": str(guide.formula),
        "dim": guide.dim,
        "base": str(guide.base),
        "dtype": str(guide.dtype).removeprefix("torch."),
    }
    for name, value in described.items():
        if settings[name] != value:
            raise ValueError(f"its settings say {name}={settings[name]!r}, its guide {value!r}")
