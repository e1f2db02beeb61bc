"""Targets: what a fit or a sampler is run on."""

from __future__ import annotations

from typing import Any

from nfvi.errors import TargetError
from nfvi.targets.base import Target
from nfvi.targets.log_density import LogDensity, log_density

__all__ = ["LogDensity", "Target", "as_target", "log_density"]


def as_target(target: Any, *args: Any, dim: int | None = None) -> Target:
    """Make a :class:`Target` of what the user hands to a fit or a sampler.

    Args:
        target: a :class:`Target`, which is returned as it is, or a function of z with ``dim=``.
        args: the arguments of a model.
        dim: the dimension, for a bare log-density.

    Raises:
        TargetError: target is none of these, or an argument does not go with it.
    """
    if isinstance(target, Target):
        if args:
            raise TargetError(f"{target.name!r} is a target already and takes no model arguments")
        if dim is not None and dim != target.dim:
            raise TargetError(f"dim={dim} was given, but {target.name!r} has dim={target.dim}")
        return target
    if not callable(target):
        raise TargetError(
            f"a target is a function, a Pyro model or a Target; got {type(target).__name__}"
        )
    if dim is None:
        raise TargetError("a log-density needs dim=, its number of dimensions")
    if args:
        raise TargetError("dim= is for a log-density, which takes no model arguments; drop one")
    return LogDensity(target, dim)
