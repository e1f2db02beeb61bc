"""From what the user hands to a fit or a sampler to a target."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nfvi.errors import TargetError
from nfvi.targets.base import Target
from nfvi.targets.checks import needed_arguments
from nfvi.targets.log_density import LogDensity
from nfvi.targets.named_density import NamedDensity
from nfvi.targets.other_libraries import advice_on
from nfvi.targets.pymc import PyMCTarget
from nfvi.targets.pymc_graphs import is_pymc_model
from nfvi.targets.pyro import PyroTarget

__all__ = ["as_target", "takes_one_argument"]


def as_target(
    target: Any,
    *args: Any,
    dim: int | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Target:
    """Make a :class:`Target` of what the user hands to a fit or a sampler.

    Args:
        target: a :class:`Target`, which is returned as it is; a function log p(z), with ``dim=``;
            a Pyro model, with its arguments; or a PyMC model.
        args: the arguments of a Pyro model.
        dim: d, for a function log p(z).
        parameters: name -> shape, support or prior, for a function of named parameters; see
            :class:`NamedDensity`.

    Raises:
        TargetError: target is none of these, or an argument does not go with it.
    """
    if parameters is not None:
        return _named(target, args, dim, parameters)
    if is_pymc_model(target):
        target = PyMCTarget(target)
    if isinstance(target, Target):
        if args:
            raise TargetError(f"{target.name!r} is a target already and takes no model arguments")
        if dim is not None and dim != target.dim:
            raise TargetError(f"dim={dim} was given, but {target.name!r} has dim={target.dim}")
        return target
    if (advice := advice_on(target)) is not None:
        raise TargetError(advice)
    if not callable(target):
        raise TargetError(
            "a target is a function log p(z) with dim=, a function with parameters=, a Pyro model,"
            " a PyMC model or a Target; got "
            f"{type(target).__name__}"
        )
    if dim is None:
        if not args and takes_one_argument(target):
            name = getattr(target, "__name__", type(target).__name__)
            raise TargetError(
                f"{name!r} takes an argument, so it looks like a log-density: say how many"
                " coordinates it has, dim=2, or name its parameters, parameters={'tau':"
                " 'positive', 'beta': 3}. The arguments of a Pyro model come after it"
            )
        return PyroTarget(target, *args)
    if args:
        raise TargetError(
            "dim= is for a function log p(z), and a Pyro model finds its own dimension; "
            "leave out dim= or the model's arguments"
        )
    return LogDensity(target, dim)


def _named(
    target: Any, args: tuple[Any, ...], dim: int | None, parameters: Mapping[str, Any]
) -> Target:
    if isinstance(target, Target) or args or is_pymc_model(target):
        what = "a PyMC model" if is_pymc_model(target) else "a Pyro model with arguments"
        what = repr(target.name) if isinstance(target, Target) else what
        raise TargetError(
            f"parameters= is for a function of the values of parameters; {what} has its own"
        )
    made = NamedDensity(target, parameters)
    if dim is not None and dim != made.dim:
        raise TargetError(f"dim={dim} was given, but the parameters have dim={made.dim}")
    return made


def takes_one_argument(fn: Any) -> bool:
    """Whether a function needs one argument, as a log-density does, and as some models do."""
    try:
        arguments = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return False
    return len(needed_arguments(arguments)) == 1
