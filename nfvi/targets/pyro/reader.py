"""Reading a Pyro model by running it: its sites, and what has to be held fixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, isolated
from nfvi.targets.pyro.enum import Summation, read_summation
from nfvi.targets.pyro.handlers import Message, Values, is_deterministic, is_enumerated
from nfvi.targets.pyro.latents import feasible_value, latent_sites, refuse_changed_sites
from nfvi.targets.pyro.program import Program
from nfvi.targets.pyro.prototype import Prototype
from nfvi.targets.pyro.sites import Site
from nfvi.utils import check_unmasked

__all__ = ["read_program", "warn_of_constants"]


def read_program(
    name: str, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Program, dict[str, Site]]:
    """Run a model a few times and learn its sites; no random or parameter state changes.

    Args:
        name: what messages call the model.
        model: the model.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        The program, and its continuous latent sites in the model's order.

    Raises:
        TargetError: the model raised, or it cannot be a target; the message says why.
    """
    program = Program(model, args, kwargs)
    _check_arguments(name, args, kwargs)
    try:
        with isolated():
            return _read(program)
    except TargetError as error:
        raise TargetError(f"{name!r}: {error}") from error.__cause__
    except USER_ERRORS as error:
        raise TargetError(
            f"{name!r}: running it as a Pyro model raised {type(error).__name__}: {error}. A Pyro "
            "model is run with the arguments given after it; a log-density needs dim="
        ) from error


def _check_arguments(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for label, value in (*enumerate(args), *kwargs.items()):
        try:
            check_unmasked(f"argument {label!r} of the model", value)
        except ValueError as error:
            raise TargetError(f"{name!r}: {error}") from error


def warn_of_constants(name: str, program: Program) -> None:
    """Warn of parameters that are not learned, and of plates that keep one random subsample."""
    if program.params:
        shown = ", ".join(list(program.params)[:5]) + (", ..." if len(program.params) > 5 else "")
        warnings.warn(
            f"{name!r} has parameters (pyro.param: {shown}); they keep their present values and "
            "are not learned: give them a prior with pyro.sample if they should be",
            stacklevel=3,
        )
    for plate in program.random_plates:
        warnings.warn(
            f"{name!r}: plate {plate!r} draws its own subsample; the target keeps one, of "
            f"{len(program.subsamples[plate])} indices, with its log-likelihood scaled up, so that "
            "log_prob is the same at each call. The posterior is that of this subsample: leave "
            "subsample_size= out for that of all the data",
            stacklevel=3,
        )


def _read(program: Program) -> tuple[Program, dict[str, Site]]:
    with Prototype(feasible_value, _indices) as prototype:
        first = poutine.trace(program.model).get_trace(*program.args, **program.kwargs)
    sites = latent_sites(first)
    nodes = [node for node in first.nodes.values() if node["type"] == "sample"]
    program = replace(
        program,
        params=prototype.params,
        subsamples=prototype.subsamples,
        sizes=prototype.sizes,
        batch_dims=max(len(getattr(node["fn"], "batch_shape", ())) for node in nodes),
    )
    other = _other_values(sites, first)
    refuse_changed_sites(first, program.trace(other), sites)
    if any(map(is_enumerated, nodes)):
        program = replace(program, summation=_summation(program, other))
    summed = program.trace(other)
    kept = tuple(
        name
        for name, node in first.nodes.items()
        # A site that depends on an enumerated one has a value for each choice.
        if is_deterministic(node) and _shape(summed, name) == _shape(first, name)
    )
    order = tuple(name for name in first.nodes if name in sites or name in kept)
    plates = _plates_that_matter(program, other)
    return replace(program, order=order, deterministic=kept, random_plates=plates), sites


def _plates_that_matter(program: Program, values: Values) -> tuple[str, ...]:
    """Plates whose own indices the density depends on: not those that only scale a minibatch."""

    def matters(plate: str) -> bool:
        indices = program.subsamples[plate]
        moved = program.subsamples | {plate: program.sizes[plate] - 1 - indices}
        other = replace(program, subsamples=moved).log_joint(values)
        return not torch.equal(other, program.log_joint(values))

    return tuple(filter(matters, program.subsamples))


def _summation(program: Program, values: Values) -> Summation:
    enumerating = poutine.enum(program.model, first_available_dim=-1 - program.batch_dims)
    return read_summation(replace(program, model=enumerating).trace(values))


def _shape(trace: Any, name: str) -> torch.Size:
    shape: torch.Size = trace.nodes[name]["value"].shape
    return shape


def _indices(site: Message) -> Tensor:
    """Indices drawn without replacement, the same ones for the same plate."""
    fn = site["fn"]
    generator = torch.Generator(device="cpu").manual_seed(fn.size)
    drawn = torch.randperm(fn.size, generator=generator, device="cpu")[: fn.subsample_size]
    return drawn.to(fn.device)


def _other_values(sites: Mapping[str, Site], first: Any) -> dict[str, Tensor]:
    """Values away from the first ones, and different in each site."""
    values = {}
    for name, site in sites.items():
        like = first.nodes[name]["value"]
        z = 0.1 + 0.3 * torch.rand(1, site.size, dtype=like.dtype).to(like.device)
        values[name] = site.constrain(z)[0][0]
    return values
