"""Terms of a Pyro model that make its density no joint law of latent sites and data."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import pyro.distributions as dist
import torch

from nfvi.targets.checks import isolated
from nfvi.targets.pyro.handlers import Message, in_density, is_data
from nfvi.targets.pyro.target import PyroTarget

__all__ = ["observed_sites", "unnormalised_terms"]

ONE = torch.ones((), dtype=torch.float64)


def unnormalised_terms(target: PyroTarget, *, of_all_rows: bool = False) -> dict[str, str]:
    """The terms that have no normaliser of their own: site -> what it is.

    These are improper priors, ``pyro.factor``, and sites whose log-density is scaled, as in a
    plate that subsamples. A model without any is a law of latent sites and data together: it can be
    simulated from, and its integral over the latent sites is the evidence.

    Args:
        target: of the model.
        of_all_rows: whether to look at the density of all rows, in which plates that draw their own
            rows scale nothing.
    """
    fresh: set[str] = set()
    if of_all_rows:
        program = target.program
        fresh |= set() if program.all_rows is None else set(program.all_rows.sizes)
        fresh |= set() if target.fresh_plate is None else {target.fresh_plate}
    return {
        name: reason
        for name, node in _trace(target).nodes.items()
        if node["type"] == "sample" and in_density(node) and (reason := _reason(node, fresh))
    }


def observed_sites(target: PyroTarget) -> tuple[str, ...]:
    """The sites that have data, without ``pyro.factor``."""
    return tuple(
        name
        for name, node in _trace(target).nodes.items()
        if node["type"] == "sample" and is_data(node)
    )


def _trace(target: PyroTarget) -> Any:
    with isolated():
        return target.program.trace(target.program.feasible)


def _reason(node: Message, fresh: Collection[str]) -> str:
    if isinstance(_bare(node["fn"]), dist.ImproperUniform):
        return "an improper prior"
    if isinstance(_bare(node["fn"]), dist.Unit):
        return "a pyro.factor term"
    frames = [frame for frame in node["cond_indep_stack"] if frame.name in fresh]
    factor = math.prod(frame.full_size / frame.size for frame in frames)
    if not torch.allclose(torch.as_tensor(node["scale"] / factor).double(), ONE):
        return "a scaled log-density, as in a plate with subsample_size= or poutine.scale"
    return ""


def _bare(fn: Any) -> Any:
    """A distribution without ``to_event``, ``mask`` and ``expand`` around it."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
