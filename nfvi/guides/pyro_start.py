"""Where a Pyro autoguide starts, and the other things that a user may tell it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer.autoguide.initialization import init_to_feasible
from torch import Tensor

from nfvi.guides.bases import Base
from nfvi.utils import check_positive

__all__ = [
    "check_function",
    "checked_plates",
    "feasible",
    "quantile_levels",
    "start_at",
    "start_scale",
]

# That of Pyro's own guides.
INIT_SCALE = 0.1


def check_function(name: str, value: Any, what: str) -> None:
    """Check that an argument is a function or ``None``.

    Raises:
        TypeError: it is not.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name}= must be a function {what}; got {value!r}")


def start_scale(given: Any, placed: bool, base: Base) -> float | None:
    """The sd to start with; ``None`` for that of the base, around 0.

    Raises:
        ValueError: it is not positive, or the base has no sd that could be scaled.
    """
    if given is None and not placed:
        return None
    if given is not None:
        check_positive("init_scale", given)
    try:
        base.sd  # noqa: B018
    except NotImplementedError as error:
        said = "init_loc_fn= and init_scale= need the spread of the base"
        raise ValueError(f"{said}: {error}") from error
    return INIT_SCALE if given is None else float(given)


def quantile_levels(quantiles: Any) -> Tensor:
    """Levels (Q), in float64.

    Raises:
        ValueError, TypeError: they are not several numbers from 0 to 1.
    """
    try:
        levels = torch.as_tensor([float(q) for q in quantiles], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"quantiles must be several levels, as in [0.05, 0.5, 0.95]; got {quantiles!r}"
        ) from error
    if not bool(((levels >= 0) & (levels <= 1)).all()):
        raise ValueError(f"quantiles must be from 0 to 1; got {levels.tolist()}")
    return levels


def start_at(init_loc_fn: Callable[..., Any], site: Any = None) -> Any:
    """Pyro's start by a function of sites; a discrete one, which the guide leaves out, is drawn.

    Like Pyro's own, it takes a site, or none and then returns what does.
    """
    if site is None:
        return partial(start_at, init_loc_fn)
    discrete = getattr(site["fn"].support, "is_discrete", False)
    return feasible(site) if discrete else init_loc_fn(site)


def checked_plates(
    create_plates: Callable[..., Any], *args: Any, **kwargs: Any
) -> list[pyro.plate]:
    """What a user's function of the model's arguments returns, as a list of plates.

    Raises:
        TypeError: it returns something else.
    """
    made = create_plates(*args, **kwargs)
    given = list(made) if isinstance(made, list | tuple) else [made]
    if not all(isinstance(plate, pyro.plate) for plate in given):
        raise TypeError(f"create_plates= must return a pyro.plate or a list of them; got {made!r}")
    return given


def feasible(site: Any = None) -> Any:
    """Pyro's start at a feasible point; a discrete site, which the guide leaves out, is drawn."""
    if site is None:
        return feasible
    if getattr(site["fn"].support, "is_discrete", False):
        return site["fn"].sample()
    return init_to_feasible(site)
