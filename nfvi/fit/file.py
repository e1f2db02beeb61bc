"""A fit as a file and back."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from nfvi.errors import FitError, TargetError
from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.path import ClimbPath
from nfvi.fit.restarts import Restart
from nfvi.guides import AnyGuide, guide_from_header, header_of_guide
from nfvi.targets import Target, as_target
from nfvi.training import History
from nfvi.utils import read_file, write_file

if TYPE_CHECKING:
    from nfvi.fit.fit import Fit

__all__ = ["load_fit", "save_fit"]


def save_fit(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Write a fit; see :meth:`nfvi.Fit.save`."""
    tensors = {f"guide.{name}": value for name, value in fit.guide.state_dict().items()}
    tensors |= {f"history.{name}": value for name, value in fit.history.state_dict().items()}
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
    }
    write_file(path, "fit", tensors, values)


def load_fit(
    path: str | os.PathLike[str], target: Any, map_location: torch.device | str | None
) -> dict[str, Any]:
    """The arguments of :class:`nfvi.Fit` from a file; see :meth:`nfvi.Fit.load`."""
    tensors, values = read_file(path, "fit", map_location)
    try:
        settings = values["settings"]
        # Files of earlier versions hold guides that the settings describe in full.
        header = values.get("guide", settings)
        guide = guide_from_header(header, _under("guide.", tensors), map_location)
        _check_settings(settings, guide)
        history = History()
        history.load_state_dict(_under("history.", tensors))
        found: dict[str, Any] = {
            "guide": guide,
            "history": history,
            "restarts": tuple(Restart(**restart) for restart in values["restarts"]),
            "settings": settings,
            "stopped": values["stopped"],
            "wall_time": values["wall_time"],
            "gradient_evaluations": values["gradient_evaluations"],
            "batched_evaluations": values.get("batched_evaluations"),
            "diagnostics": Diagnostics(**values["diagnostics"]),
            "path": ClimbPath.from_dict(values["path"]) if values.get("path") else None,
        }
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FitError(f"{str(path)!r} is not a complete fit ({error})") from error
    return {**found, "target": _target(target, settings, guide)}


def _target(target: Any, settings: dict[str, Any], guide: AnyGuide) -> Target | None:
    if target is None:
        return None
    bare = not isinstance(target, Target) and not settings["named"]
    made = as_target(target, dim=settings["dim"] if bare else None)
    if made.dim != settings["dim"]:
        raise TargetError(
            f"this fit has dim={settings['dim']}, and target {made.name!r} has dim={made.dim}"
        )
    made.check(guide.dtype, guide.device)
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


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
