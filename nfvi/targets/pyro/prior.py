"""Draws from the prior of a Pyro model, on unconstrained space."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, isolated
from nfvi.targets.pyro.handlers import Message, Outermost, Values
from nfvi.targets.pyro.places import made_on
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site, unconstrain_sites

__all__ = ["draw_prior"]


@torch.no_grad()
def draw_prior(program: Program, sites: dict[str, Site], n: int, seed: int) -> Tensor | None:
    """n draws z (n, d) of the latent sites before any data are seen.

    The model is run n times, as what it does in a run is its own affair.

    Args:
        program: the model with its arguments.
        sites: its latent sites.
        n: how many.
        seed: of the draws; no global random state changes.

    Returns:
        The draws, or ``None`` where the prior is improper or the model raises.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in sites}
    try:
        for i in range(n):
            handler = _Prior(program.params, program.subsamples)
            with isolated(seed + i), made_on(program.device), handler:
                program.model(*program.args, **program.kwargs)
            for name, drawn in values.items():
                drawn.append(handler.latents[name])
        z = unconstrain_sites(sites, {name: torch.stack(drawn) for name, drawn in values.items()})
    except (*USER_ERRORS, TargetError):
        return None
    usable = z.isfinite().all(1)
    return z[usable] if bool(usable.any()) else None


class _Prior(Outermost):
    """Leaves latent sites to Pyro, which draws them, and writes down their values."""

    def __init__(self, params: Values, subsamples: Values) -> None:
        super().__init__(params, subsamples)
        self.latents: dict[str, Tensor] = {}

    def _latent(self, msg: Message) -> None:
        """Left to Pyro."""

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            self.latents[msg["name"]] = msg["value"]
