"""Draws of latent sites and data from a Pyro model, and the model given such data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, isolated
from nfvi.targets.pyro.handlers import Message, Outermost, Values, is_deterministic, is_latent
from nfvi.targets.pyro.places import made_on
from nfvi.targets.pyro.prediction import redrawn
from nfvi.targets.pyro.target import PyroTarget
from nfvi.targets.pyro.terms import observed_sites, unnormalised_terms

__all__ = ["Simulation", "check_simulable", "given_data", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """One draw from the joint law of a model.

    Attributes:
        latents: the value of each latent site, those that are summed out too.
        data: the value of each observed site.
    """

    latents: dict[str, Tensor]
    data: dict[str, Tensor]


def check_simulable(target: PyroTarget) -> None:
    """Check that a model is a law that data can be drawn from.

    Raises:
        TargetError: it has no observed site, an improper prior, a ``pyro.factor`` term or a scaled
            log-density, or a draw from it fails.
    """
    for name, reason in unnormalised_terms(target).items():
        raise TargetError(
            f"{target.name!r} cannot be simulated from: site {name!r} is {reason}. Give every "
            "latent site a proper prior, write likelihoods as pyro.sample(..., obs=), and leave "
            "out subsampling"
        )
    if not observed_sites(target):
        raise TargetError(
            f"{target.name!r} has no observed site with these arguments: pass the arguments with "
            "which it has data, so that pyro.sample(..., obs=) tells what is to be simulated"
        )
    simulate(target, 0)


@torch.no_grad()
def simulate(target: PyroTarget, seed: int) -> Simulation:
    """Draw every latent site from its prior and then every observed one, in the model's order.

    Args:
        target: of a model that :func:`check_simulable` accepts.
        seed: of the draw; no global random state changes.

    Raises:
        TargetError: the model raised, or drew values that are not finite.
    """
    program = target.program
    handler = _Simulate(program.params)
    try:
        with isolated(seed), made_on(program.device), handler:
            program.model(*program.args, **program.kwargs)
    except USER_ERRORS as error:
        raise TargetError(
            f"{target.name!r}: drawing from it raised {type(error).__name__}: {error}"
        ) from error
    for name, value in (handler.latents | handler.data).items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise TargetError(f"{target.name!r}: a draw of site {name!r} is not finite")
    return Simulation(handler.latents, handler.data)


def given_data(target: PyroTarget, data: Values) -> PyroTarget:
    """The same model with other data at its observed sites."""
    program = target.program
    model: Callable[..., Any] = pyro.condition(program.model, data=dict(data))
    return PyroTarget(model, *program.args, name=target.name, **program.kwargs)


class _Simulate(Outermost):
    """Draws the observed sites too, and writes down all values."""

    def __init__(self, params: Values) -> None:
        super().__init__(params, {})
        self.latents: dict[str, Tensor] = {}
        self.data: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Message) -> None:
        if msg["is_observed"] and not is_deterministic(msg):
            msg["value"] = redrawn(msg)
        super()._pyro_sample(msg)

    def _latent(self, msg: Message) -> None:
        """Left to Pyro, which draws it."""

    def _pyro_post_sample(self, msg: Message) -> None:
        if is_latent(msg):
            self.latents[msg["name"]] = msg["value"]
        elif msg["is_observed"] and not is_deterministic(msg):
            self.data[msg["name"]] = msg["value"]
