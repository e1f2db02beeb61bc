"""Reading a Pyro model by running it: its sites, and what has to be held fixed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, fixed_randomness, isolated, probe_points
from nfvi.targets.minibatch import random_rows
from nfvi.targets.pyro.all_rows import Drawn
from nfvi.targets.pyro.all_rows_check import check_rows
from nfvi.targets.pyro.all_rows_reader import (
    full_sites,
    latent_plates,
    read_all_rows,
    through_vmap,
)
from nfvi.targets.pyro.enum import Summation, read_summation
from nfvi.targets.pyro.handlers import (
    Message,
    Values,
    is_deterministic,
    is_enumerated,
    shrinking_plates,
)
from nfvi.targets.pyro.latents import (
    feasible_value,
    latent_sites,
    prior_value,
    refuse_changed_sites,
)
from nfvi.targets.pyro.places import device_of, made_on
from nfvi.targets.pyro.program import Program
from nfvi.targets.pyro.prototype import Prototype
from nfvi.targets.sites import Site
from nfvi.utils import check_unmasked, place_of

__all__ = ["read_program", "trial_points"]

# What a model raises where a parameter of a distribution in it is out of its range.
INVALID = (ArithmeticError, ValueError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
TRIES = 20
CENTRED = 10


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
            f"{name!r}: running it as a Pyro model raised {type(error).__name__}: {error}"
            f"{place_of(error, model)}. A Pyro "
            "model is run with the arguments given after it, at draws of its priors; a log-density"
            " needs dim=, and one of "
            "named values parameters=, or NamedDensity(f, parameters) where that is no argument"
        ) from error


def trial_points(
    program: Program, sites: Mapping[str, Site], n: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Points (n, d) at which the log-density is tried: normal, or where need be prior draws.

    Raises:
        TargetError: there are not so many prior draws that the model takes.
    """
    if not program.from_prior:
        return probe_points(n, sum(site.size for site in sites.values()), dtype, device)
    with isolated():
        draws = [torch.cat(parts, 1) for parts in _prior_draws(program, sites, n, 1)]
    return torch.cat(draws).to(dtype=dtype, device=device)


def _check_arguments(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for label, value in (*enumerate(args), *kwargs.items()):
        try:
            check_unmasked(f"argument {label!r} of the model", value)
        except ValueError as error:
            raise TargetError(f"{name!r}: {error}") from error


def _read(program: Program) -> tuple[Program, dict[str, Site]]:
    prototype, first, from_prior = _first_run(program)
    nodes = {name: node for name, node in first.nodes.items() if node["type"] == "sample"}
    sites = latent_sites(first)
    fitted = latent_plates(nodes.values(), sites, prototype.subsamples)
    program = replace(
        program,
        params=prototype.params,
        subsamples=prototype.subsamples,
        sizes=prototype.sizes,
        batch_dims=max(len(getattr(node["fn"], "batch_shape", ())) for node in nodes.values()),
        unscaled=_unscaled_plates(nodes.values(), sites, fitted),
        from_prior=from_prior,
    )
    if fitted:
        taken = {name: nodes[name]["value"] for name in sites}
        plates = [p for p in prototype.subsamples if p in fitted or _moves(program, p, taken)]
        program = replace(program, all_rows=read_all_rows(program, nodes, taken, plates))
        sites = full_sites(program, sites, nodes)
    if from_prior:
        sites = _around_the_prior(program, sites)
    other = _other_values(program, sites, first)
    refuse_changed_sites(first, program.trace(other), sites)
    if any(map(is_enumerated, nodes.values())):
        program = replace(program, summation=_summation(program, other))
    program = through_vmap(program, other)
    summed, mixed = program.trace(other), check_rows(program, other)
    kept = tuple(
        name
        for name, node in first.nodes.items()
        # A site that depends on an enumerated one has a value for each choice.
        if is_deterministic(node)
        and _shape(summed, name) == _shape(first, name)
        and name not in mixed
    )
    order = tuple(name for name in first.nodes if name in sites or name in kept)
    program = replace(program, order=order, deterministic=kept, mixed=mixed, feasible=other)
    if not fitted:
        program = replace(program, random_plates=_plates_that_matter(program, other))
    return program, sites


def _first_run(program: Program) -> tuple[Prototype, Any, bool]:
    """Run the model where z = 0, or where it does not take that, at a draw from its prior.

    Returns:
        What was found out, the trace, and whether it took a draw.
    """
    try:
        return *_run(program, feasible_value), False
    except TargetError:
        raise
    except INVALID as error:
        for seed in range(TRIES):
            with fixed_randomness(seed), suppress(*INVALID):
                return *_run(program, prior_value), True
        raise error


def _run(
    program: Program,
    place: Callable[[Message], Tensor | None],
    rows: Values | None = None,
) -> tuple[Prototype, Any]:
    def indices(site: Message) -> Tensor:
        return (rows or {}).get(site["name"], _indices(site))

    device = device_of(program.args, program.kwargs)
    with made_on(device), Prototype(place, indices) as prototype:
        trace = poutine.trace(program.model).get_trace(*program.args, **program.kwargs)
    return prototype, trace


def _unscaled_plates(
    nodes: Iterable[Message], sites: Mapping[str, Site], fitted: Collection[str]
) -> dict[str, tuple[int, int]]:
    """Plates given fewer rows, with a continuous latent site: rows taken, rows in all.

    Where a discrete site is summed out, what is scaled is the log of the sum, as it should be.
    """
    return {
        frame.name: (int(frame.size), int(frame.full_size))
        for node in nodes
        if node["name"] in sites
        for frame in shrinking_plates(node)
        if frame.name not in fitted
    }


def _plates_that_matter(program: Program, values: Values) -> tuple[str, ...]:
    """Plates whose own indices the density depends on: not those that only scale a minibatch."""
    return tuple(plate for plate in program.subsamples if _moves(program, plate, values))


def _moves(program: Program, plate: str, values: Values) -> bool:
    """Whether other rows of a plate change the density."""
    other = program.at({plate: program.sizes[plate] - 1 - program.subsamples[plate]})
    return not torch.equal(other.log_joint(values), program.log_joint(values))


def _summation(program: Program, values: Values) -> Summation:
    enumerating = poutine.enum(program.model, first_available_dim=-1 - program.batch_dims)
    return read_summation(replace(program, model=enumerating).trace(values))


def _shape(trace: Any, name: str) -> torch.Size:
    shape: torch.Size = trace.nodes[name]["value"].shape
    return shape


def _around_the_prior(program: Program, sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites with z = 0 at a draw from the prior: of some, the one nearest to their mean."""
    draws = [torch.cat(parts, 1)[0] for parts in _prior_draws(program, sites, CENTRED, 0)]
    z = torch.stack([draw.double() for draw in draws])
    spread = (z - z.mean(0)) / z.std(0)
    nearest = draws[int(spread.square().sum(1).argmin())]
    return {
        name: replace(site, origin=nearest[site.start : site.stop]) for name, site in sites.items()
    }


def _prior_draws(
    program: Program, sites: Mapping[str, Site], n: int, first_seed: int
) -> list[list[Tensor]]:
    """n draws from the prior that the model takes: for each, z (1, size) of every site."""
    found: list[list[Tensor]] = []
    for seed in range(first_seed, first_seed + TRIES * n):
        with fixed_randomness(seed), suppress(TargetError, *INVALID):
            values = _prior_draw(program, sites)
            found.append([site.unconstrain(values[name][None]) for name, site in sites.items()])
        if len(found) == n:
            return found
    raise TargetError(
        f"it does not take the image of z = 0, and of {TRIES * n} draws from its prior it takes "
        f"{len(found)}; {n} are needed to try it out. Make its parameters valid for more of the "
        "values that they depend on, by clamp or softplus"
    )


def _prior_draw(program: Program, names: Iterable[str]) -> dict[str, Tensor]:
    """The latent sites drawn from the prior, of all rows of plates where they are fitted."""
    if program.all_rows is None:
        _, trace = _run(program, prior_value)
        return {name: trace.nodes[name]["value"] for name in names}
    drawn = Drawn(program.all_rows)

    def run(rows: Values) -> dict[str, Tensor]:
        _, trace = _run(program, partial(drawn.value, draw=prior_value), rows)
        return {name: trace.nodes[name]["value"] for name in names}

    return drawn.over(run)


def _indices(site: Message) -> Tensor:
    """Indices drawn without replacement, the same ones for the same plate."""
    fn = site["fn"]
    generator = torch.Generator(device="cpu").manual_seed(fn.size)
    drawn = random_rows(fn.size, fn.subsample_size, generator)
    return torch.from_numpy(drawn).to(fn.device)


def _other_values(program: Program, sites: Mapping[str, Site], first: Any) -> dict[str, Tensor]:
    """Values away from the first ones, and different in each site."""
    if not program.from_prior:
        values = _values_near_zero(sites, first)
        try:
            program.trace(values)
        except TargetError:
            raise
        except INVALID:
            pass
        else:
            return values
    (draw,) = _prior_draws(program, sites, 1, TRIES)
    pairs = zip(sites.items(), draw, strict=True)
    return {name: site.constrain(z)[0][0] for (name, site), z in pairs}


def _values_near_zero(sites: Mapping[str, Site], first: Any) -> dict[str, Tensor]:
    values = {}
    for name, site in sites.items():
        like = first.nodes[name]["value"]
        z = 0.1 + 0.3 * torch.rand(1, site.size, dtype=like.dtype).to(like.device)
        values[name] = site.constrain(z)[0][0]
    return values
