"""The checked log-density of a Pyro model on unconstrained space."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import (
    USER_ERRORS,
    Evaluate,
    agree,
    check_values,
    fixed_randomness,
    point_text,
)
from nfvi.targets.pyro.batching import Batched, PyroBatching, choose_batching
from nfvi.targets.pyro.handlers import Values
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site, constrain_sites, unconstrained_parts
from nfvi.utils import process_wide

__all__ = ["checked_evaluator", "on_unconstrained"]

SHOWN = 3
"""Sites whose values a message names."""


def checked_evaluator(
    program: Program,
    sites: Mapping[str, Site],
    model_dtype: torch.dtype,
    points: Tensor,
    name: str,
) -> tuple[Evaluate, PyroBatching, str, tuple[int, ...]]:
    """A function of z (n, d) -> (n,), how it takes a batch, why if by a loop, and what is flat.

    The last are the numbers of z on which it does not depend.

    Args:
        program: the model.
        sites: its latent sites.
        model_dtype: the least dtype to evaluate the model in.
        points: trial points (n, d), whose dtype and device those of z will be.
        name: what messages call the model.

    Raises:
        TargetError: the model raised, or its log-density is not finite, differentiable and the
            same at each call.
    """
    wide = torch.promote_types(points.dtype, model_dtype)
    values, _ = constrain_sites(sites, points.to(wide))
    try:
        parts = unconstrained_parts(sites, points.to(wide))
        batched, batching, reason = choose_batching(program, sites, values, parts)
    except TargetError as error:
        raise TargetError(f"{name!r}: {error}") from error.__cause__
    except USER_ERRORS as error:
        raise TargetError(
            f"{name!r} raised {type(error).__name__} for values in {wide} on {points.device}: "
            f"{error}. nfvi chose these values, {_first_of(values)}. The model draws its sites in"
            f" {model_dtype}; pass dtype= or device= to "
            "match its data, or convert these"
        ) from error
    evaluate = on_unconstrained(batched, sites, wide)
    if _draws_at_random(evaluate, points, name):
        evaluate = _repeatable(evaluate)
    try:
        found = check_values(evaluate, points, name)
    except TargetError as error:
        steep = _steep(evaluate, points)
        if not steep.any():
            odd = _odd_sites(program, values, ~evaluate(points).isfinite())
            raise TargetError(f"{error}{odd}") from error.__cause__
        sites_at_fault = _steep_sites(program, values, steep)
        advice = _in_float64(on_unconstrained(batched, sites, torch.float64), points)
        said = str(error).partition("; look for")[0] if advice else str(error)
        raise TargetError(f"{said}{sites_at_fault}{advice}") from error.__cause__
    return evaluate, batching, reason, found.flat


def _first_of(values: Mapping[str, Tensor]) -> str:
    """The first value of each of three sites at most."""
    shown = [f"{name} = {_value_text(value[0])}" for name, value in list(values.items())[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(values) > SHOWN else "")


def _value_text(value: Tensor) -> str:
    return f"{value.item():.4g}" if value.numel() == 1 else point_text(value.flatten())


def on_unconstrained(batched: Batched, sites: Mapping[str, Site], wide: torch.dtype) -> Evaluate:
    """A function of z from one of values, which it gets in a dtype; Jacobians are added."""

    def evaluate(z: Tensor) -> Tensor:
        z_wide = z.to(wide)
        values, ladj = constrain_sites(sites, z_wide)
        log_joint = batched(values, unconstrained_parts(sites, z_wide))
        return (log_joint if ladj is None else log_joint + ladj).to(z.dtype)

    return evaluate


def _draws_at_random(evaluate: Evaluate, points: Tensor, name: str) -> bool:
    """Whether the model uses up random numbers; refused if its log-density depends on them."""
    before = _random_state(points.device)
    first = evaluate(points)
    used = not torch.equal(before, _random_state(points.device))
    if not agree(first, evaluate(points)):
        raise TargetError(
            f"{name!r} has another log-density at each call: it draws random numbers outside of "
            "pyro.sample, or in sites hidden by poutine.block. Draw these before, and pass them as "
            "an argument"
        )
    return used


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _repeatable(evaluate: Evaluate) -> Evaluate:
    """The same function, leaving the global random state as it is."""

    def repeat(z: Tensor) -> Tensor:
        with fixed_randomness():
            return evaluate(z)

    return repeat


def _odd_sites(program: Program, values: Values, odd: Tensor) -> str:
    """Words on the sites whose log-density is not finite, at the first of the odd points."""
    if not odd.any():
        return ""
    row = int(odd.nonzero()[0])
    with process_wide(), pyro.validation_enabled(False):
        trace = program.trace({name: value[row] for name, value in values.items()})
        trace.compute_log_prob()
    shown = [
        f"{name!r} ({total.item():g})"
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not (total := node["log_prob_sum"]).isfinite()
    ]
    return f"; there, the log-density of site {', '.join(shown)} is not finite" if shown else ""


def _steep(evaluate: Evaluate, points: Tensor) -> Tensor:
    """Where (n,) the log-density is finite and its gradient is not."""
    leaf = points.detach().clone().requires_grad_()
    values = evaluate(leaf)
    finite = values.detach().isfinite()
    if not values.requires_grad or not finite.any():
        return torch.zeros_like(finite)
    (gradient,) = torch.autograd.grad(values[finite].sum(), leaf, allow_unused=True)
    if gradient is None:
        return torch.zeros_like(finite)
    return finite & ~gradient.isfinite().all(1)


def _steep_sites(program: Program, values: Values, steep: Tensor) -> str:
    """Words on the sites whose log-density has no finite gradient, at the first such point."""
    row = int(steep.nonzero()[0])
    leaves = {n: value[row].detach().clone().requires_grad_() for n, value in values.items()}
    with process_wide(), pyro.validation_enabled(False):
        trace = program.trace(leaves)
        trace.compute_log_prob()
    shown = [
        repr(name)
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not _smooth(node["log_prob_sum"], list(leaves.values()))
    ]
    return f"; there, it is site {', '.join(shown)} whose gradient is not finite" if shown else ""


def _smooth(log_prob: Tensor, leaves: list[Tensor]) -> bool:
    """Whether a term has a finite gradient with respect to each of the leaves it depends on."""
    if not log_prob.requires_grad:
        return True
    gradients = torch.autograd.grad(log_prob, leaves, retain_graph=True, allow_unused=True)
    return all(g is None or bool(g.isfinite().all()) for g in gradients)


def _in_float64(evaluate: Evaluate, points: Tensor) -> str:
    """Advice, where the gradient of narrower points is finite in float64."""
    if points.dtype == torch.float64 or points.device.type == "mps":
        return ""
    try:
        if _steep(evaluate, points.double()).any():
            return ""
    except USER_ERRORS:
        return ""
    return f". It is finite in float64: pass dtype=torch.float64 in place of {points.dtype}"
