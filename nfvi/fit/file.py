"""A fit as a file and back."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nfvi.errors import TargetError
from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.path import ClimbPath
from nfvi.fit.restarts import Restart, kept
from nfvi.guides import AnyGuide, guide_from_header, header_of_guide, parts
from nfvi.search import MissedMass
from nfvi.targets import Target, as_target
from nfvi.training import History, check_settings
from nfvi.utils import (
    Amount,
    Count,
    Positive,
    check_entries,
    complete,
    over,
    read_file,
    record_of,
    under,
    write_file,
)

__all__ = ["FitRecord", "load_fit", "save_fit", "target_for"]

REQUIRED = {
    "settings": Any,
    "restarts": tuple[Any, ...],
    "stopped": str,
    "wall_time": Amount,
    "gradient_evaluations": Count,
    "diagnostics": Any,
}
OPTIONAL = {
    "batched_evaluations": Count | None,
    "path": Any,
    "guide": Any,
    "missed": Any,
    "verified": bool | None,
    "log_normalizer": float | None,
    "verdict": str,
}


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
    with complete(path, "fit"):
        read = check_entries(values, REQUIRED, OPTIONAL)
        settings = read["settings"]
        check_settings(settings, "target")
        # Files of earlier versions hold guides that the settings describe in full.
        header, place = (read["guide"], "guide") if "guide" in read else (settings, "settings")
        guide = guide_from_header(header, under("guide.", tensors), map_location, place)
        _check_settings(settings, guide)
        history = History()
        history.load_state_dict(under("history.", tensors))
        restarts = tuple(
            record_of(Restart, one, f"restarts[{k}]", index=Count, skipped=Count)
            for k, one in enumerate(read["restarts"])
        )
        _check_restarts(restarts, history, guide)
        return FitRecord(
            guide=guide,
            history=history,
            restarts=restarts,
            settings=settings,
            stopped=read["stopped"],
            wall_time=read["wall_time"],
            gradient_evaluations=read["gradient_evaluations"],
            batched_evaluations=read.get("batched_evaluations"),
            diagnostics=record_of(
                Diagnostics, read["diagnostics"], "diagnostics", draws=Positive, not_finite=Count
            ),
            path=None if read.get("path") is None else ClimbPath.from_dict(read["path"]),
            missed=MissedMass.from_dict(read["missed"]) if read.get("missed") else None,
            verified=read.get("verified"),
            log_normalizer=read.get("log_normalizer"),
        )


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


def _check_restarts(restarts: tuple[Restart, ...], history: History, guide: AnyGuide) -> None:
    """Restarts, history and guide must be of one fit: a fit that continues reads all of them."""
    best = sum(restart.best for restart in restarts)
    if best != 1:
        raise ValueError(f"its entry restarts has {best} that are the best, and must have one")
    if len(history) and history.loss.shape[1] != len(restarts):
        raise ValueError(
            f"its entry restarts has {len(restarts)}, and its history {history.loss.shape[1]}"
        )
    if len(history) and [r.index for r in restarts] != list(range(len(restarts))):
        raise ValueError("its entry restarts has an index that is not its place")
    if len(kept(restarts)) != len(parts(guide)):
        raise ValueError(
            f"its entry restarts keeps {len(kept(restarts))}, and its guide has"
            f" {len(parts(guide))} components"
        )


def _check_settings(settings: dict[str, Any], guide: AnyGuide) -> None:
    """Settings and guide must be of one fit: a fit that continues reads both."""
    described = {
        "formula": str(guide.formula),
        "dim": guide.dim,
        "base": str(guide.base),
        "dtype": str(guide.dtype).removeprefix("torch."),
    }
    for name, value in described.items():
        if settings[name] != value:
            raise ValueError(
                f"its entry settings.{name} is {settings[name]!r}, and its guide has {value!r}"
            )
