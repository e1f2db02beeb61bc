"""What ArviZ is told of a Pyro model: names of dimensions, its data, and other arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import unwrap
from torch import Tensor

from nfvi.targets.checks import isolated
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
    observed = {name: _array(node["value"]) for name, node in nodes.items() if is_data(node)}
    shown = {
        name: node
        for name, node in nodes.items()
        if name in program.order or (in_density(node) and is_data(node))
    }
    return PyroFacts(
        {name: _dims(name, node) for name, node in shown.items()},
        observed,
        {
            name: value
            for name, value in _arguments(program).items()
            if name not in shown and not any(_same(value, data) for data in observed.values())
        },
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


def _arguments(program: Program) -> dict[str, np.ndarray]:
    """The tensors and arrays that the model is called with, defaults included, by name."""
    bare: Any = unwrap(program.model)
    try:
        bound = inspect.signature(bare).bind(*program.args, **program.kwargs)
    except (TypeError, ValueError):
        return {}
    bound.apply_defaults()
    named: Mapping[str, Any] = bound.arguments
    return {
        name: _array(value)
        for name, value in named.items()
        if isinstance(value, Tensor | np.ndarray)
    }


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether an argument is the data of a site, perhaps in another dtype."""
    if a.shape != b.shape or "O" in (a.dtype.kind, b.dtype.kind):
        return False
    wide = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return torch.allclose(*wide, rtol=1e-6, atol=0.0, equal_nan=True)
