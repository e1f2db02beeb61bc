"""How many points at once go through a Pyro model: vmap, broadcasting, or a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, agree
from nfvi.targets.pyro.handlers import Values
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site

__all__ = ["Batched", "PyroBatching", "batched", "choose_batching", "map_rows", "rows_of"]

PyroBatching = Literal["vmap", "broadcast", "loop"]
Batched = Callable[[Values, Values], Tensor]
KINDS: tuple[PyroBatching, ...] = ("loop", "vmap", "broadcast")


def choose_batching(
    program: Program, sites: Mapping[str, Site], values: Values, parts: Values
) -> tuple[Batched, PyroBatching, str]:
    """The fastest way to evaluate the model on a batch that agrees with one run a point.

    Values and gradients must both agree. A loop is always right; vmap refuses what it cannot map,
    such as branches on a value; broadcasting may go through and be wrong.

    Args:
        program: the model.
        sites: its latent sites.
        values: trial values (n, \\*shape) of them. No other dimension of the model should be n.
        parts: the numbers (n, \\*unconstrained_shape) of sites whose prior is computed from them.

    Returns:
        The function of values and parts to (n,), its kind, and for a loop why it had to be.
    """
    points = (values, parts)
    loop, mapped, broadcast = (batched(program, sites, kind) for kind in KINDS)
    expected = _value_and_gradients(loop, points)
    reason = _disagreement(mapped, points, expected)
    if not reason:
        return mapped, "vmap", ""
    # The axis of an enumerated site and that of the points would be hard to tell apart.
    if program.summation is None and not _disagreement(broadcast, points, expected):
        return broadcast, "broadcast", ""
    return loop, "loop", reason


def batched(program: Program, sites: Mapping[str, Site], kind: PyroBatching) -> Batched:
    """The model as a function of batches of values and parts, in one of three ways."""

    def loop(values: Values, parts: Values) -> Tensor:
        rows = zip(rows_of(values), rows_of(parts), strict=True) if parts else zip(rows_of(values))
        return torch.stack([program.log_joint(*row) for row in rows])

    def broadcast(values: Values, parts: Values) -> Tensor:
        return program.log_joint_rows(
            {name: _lift(value, sites[name], program) for name, value in values.items()},
            {name: _lift(part, sites[name], program) for name, part in parts.items()},
        )

    vmapped = torch.func.vmap(program.log_joint, randomness="same")

    def mapped(values: Values, parts: Values) -> Tensor:
        # A single point, which is what a Markov chain asks for, is cheaper without vmap.
        alone = len(next(iter(values.values()))) == 1
        found: Tensor = loop(values, parts) if alone else vmapped(values, parts)
        return found

    return {"loop": loop, "vmap": mapped, "broadcast": broadcast}[kind]


def map_rows(
    function: Callable[[Values], dict[str, Tensor]], values: Values
) -> Callable[[Values], dict[str, Tensor]]:
    """A function of the values at one point, for values (n, \\*shape): by vmap or a loop.

    Args:
        function: from the value of each site to tensors by name.
        values: some, at which the two must agree.
    """

    def loop(values: Values) -> dict[str, Tensor]:
        found = [function(row) for row in rows_of(values)]
        return {name: torch.stack([row[name] for row in found]) for name in found[0]}

    mapped = torch.func.vmap(function, randomness="same")
    few = {name: value[:2] for name, value in values.items()}
    expected = loop(few)
    try:
        got = mapped(few)
    except USER_ERRORS:
        return loop
    same = all(_same(got[name], expected[name]) for name in expected)
    return mapped if same else loop


def rows_of(values: Values) -> Iterator[dict[str, Tensor]]:
    """The values of each point, of values (n, \\*shape)."""
    for i in range(len(next(iter(values.values())))):
        yield {name: value[i] for name, value in values.items()}


def _lift(value: Tensor, site: Site, program: Program) -> Tensor:
    """(n, \\*shape) with axes of length 1 after the first, up to the model's batch dimensions."""
    missing = program.batch_dims - (len(site.shape) - site.event_dim)
    return value.reshape(len(value), *(1,) * missing, *value.shape[1:])


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return agree(a, b) if a.is_floating_point() else torch.equal(a, b)


def _disagreement(evaluate: Batched, points: tuple[Values, Values], expected: list[Tensor]) -> str:
    try:
        got = _value_and_gradients(evaluate, points)
    except TargetError:
        raise
    except USER_ERRORS as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    if all(map(_same, got, expected)):
        return ""
    return "its values differ from those of one run a point"


def _value_and_gradients(evaluate: Batched, points: tuple[Values, Values]) -> list[Tensor]:
    """Log-densities (n,), and their gradients with respect to each site's values and parts."""
    values, parts = (
        {name: value.detach().clone().requires_grad_() for name, value in given.items()}
        for given in points
    )
    log_probs = evaluate(values, parts)
    if not log_probs.requires_grad:
        return [log_probs]
    leaves = [*values.values(), *parts.values()]
    gradients = torch.autograd.grad(log_probs.sum(), leaves, allow_unused=True)
    return [
        log_probs.detach(),
        *(
            torch.zeros_like(leaf) if gradient is None else gradient
            for gradient, leaf in zip(gradients, leaves, strict=True)
        ),
    ]
