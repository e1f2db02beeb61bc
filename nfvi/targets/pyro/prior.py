"""Draws from the prior of a Pyro model, on unconstrained space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.targets.checks import USER_ERRORS, isolated
from nfvi.targets.pyro.all_rows import Drawn
from nfvi.targets.pyro.handlers import Message, Outermost, Values, is_latent
from nfvi.targets.pyro.places import made_on
from nfvi.targets.pyro.program import Program
from nfvi.targets.sites import Site, unconstrain_sites

__all__ = ["draw_prior"]

# Of a model of a millisecond: 20 s.
MOST_RUNS, FEWEST = 20_000, 20


@torch.no_grad()
def draw_prior(program: Program, sites: dict[str, Site], n: int, seed: int) -> Tensor | None:
    """n draws z (n, d) of the latent sites before any data are seen.

    The model is run n times, as what it does in a run is its own affair. Where a run has some of
    the rows alone, it is run as often as all rows need, and draws may be fewer.

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
        for i in range(_affordable(program, n)):
            with isolated(seed + i):
                latents = _draw(program)
            for name, drawn in values.items():
                drawn.append(latents[name])
        z = unconstrain_sites(sites, {name: torch.stack(drawn) for name, drawn in values.items()})
    except (*USER_ERRORS, TargetError):
        return None
    usable = z.isfinite().all(1)
    return z[usable] if bool(usable.any()) else None


def _affordable(program: Program, n: int) -> int:
    """How many of n draws to make."""
    if program.all_rows is None:
        return n
    return min(n, max(MOST_RUNS // len(program.all_rows.weights), FEWEST))


def _draw(program: Program) -> Values:
    """The latent sites of one draw, of all rows."""
    if program.all_rows is None:
        return _run(program, program.subsamples, lambda site: None)
    drawn = Drawn(program.all_rows)

    def known(site: Message) -> Tensor | None:
        return drawn.value(site, lambda site: site["fn"](*site["args"], **site["kwargs"]))

    return drawn.over(lambda rows: _run(program, {**program.subsamples, **rows}, known))


def _run(
    program: Program, subsamples: Values, place: Callable[[Message], Tensor | None]
) -> dict[str, Tensor]:
    handler = _Prior(program.params, subsamples, place)
    with made_on(program.device), handler:
        program.model(*program.args, **program.kwargs)
    return handler.latents


class _Prior(Outermost):
    """Leaves latent sites to Pyro, which draws them, and writes down their values.

    Args:
        params: the value of each ``pyro.param``.
        subsamples: the indices of each plate that draws its own.
        place: the value of a latent site; ``None`` leaves it to Pyro.
    """

    def __init__(
        self, params: Values, subsamples: Values, place: Callable[[Message], Tensor | None]
    ) -> None:
        super().__init__(params, subsamples)
        self.latents: dict[str, Tensor] = {}
        self._place = place

    def _latent(self, msg: Message) -> None:
        msg["value"] = self._place(msg)

    def _pyro_post_sample(self, msg: Message) -> None:
        if is_latent(msg):
            self.latents[msg["name"]] = msg["value"]
