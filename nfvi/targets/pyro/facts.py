"""What ArviZ is told of a Pyro model: names of dimensions, its data, and other arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyro.poutine.messenger import unwrap

from nfvi.targets.checks import isolated
from nfvi.targets.constants import as_array, constants_among
from nfvi.targets.pyro.handlers import Message, in_density, is_data, is_deterministic
from nfvi.targets.pyro.program import Program

__all__ = ["PyroFacts", "read_facts"]


@dataclass(frozen=True)
class PyroFacts:
    """Names and arrays of a model.

    Attributes:
        dims: site -> the names of its batch dimensions: those of plates, or else numbered ones.
        observed: the data by site.
        constants: the tensors and arrays among the arguments that are no data, by name; without
            those called as a site is, which ArviZ would give its dimensions.
    """

    dims: dict[str, tuple[str, ...]]
    observed: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]


def read_facts(program: Program) -> PyroFacts:
    """Run a model once and write down what it says; no random state changes."""
    with isolated():
        nodes = program.trace(program.feasible).nodes
        data = {name: node["value"] for name, node in nodes.items() if is_data(node)}
        if program.all_rows is not None:
            data = program.observed()
    observed = {name: as_array(value) for name, value in data.items()}
    shown = {
        name: node
        for name, node in nodes.items()
        if name in program.order or (in_density(node) and is_data(node))
    }
    model = unwrap(program.model)
    return PyroFacts(
        {name: _dims(name, node) for name, node in shown.items()},
        observed,
        constants_among(model, program.args, program.kwargs, observed, shown),
    )


def _dims(name: str, node: Message) -> tuple[str, ...]:
    """A plate's name for each batch dimension that is one, and a number for the others.

    A plate of dim −k is the k-th batch dimension from the right.
    """
    shape, events = node["value"].shape, node["fn"].event_dim
    if is_deterministic(node) and events == len(shape):
        events = 0  # what pyro.deterministic says where it was not told
    batch = len(shape) - events
    names = [f"{name}_dim_{axis}" for axis in range(batch)]
    for frame in node["cond_indep_stack"]:
        axis = batch + frame.dim if frame.vectorized else -1
        if axis >= 0 and shape[axis] == frame.size:
            names[axis] = frame.name
    return tuple(names)
