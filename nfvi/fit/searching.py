"""The search for mass that a fitted guide misses, with its checks and a line that it runs."""

from __future__ import annotations

import torch

from nfvi.guides import AnyGuide
from nfvi.search import MissedMass, search_mass
from nfvi.targets import Target, graphs
from nfvi.training import Crew, Ranks
from nfvi.utils import check_flag, check_whole, ticking

__all__ = ["search_guide"]


def search_guide(
    guide: AnyGuide,
    target: Target,
    log_evidence: float,
    seed: int,
    traced: bool,
    *,
    draws: int | None,
    starts: int | None,
    progress: bool | None,
    distribute: bool = False,
) -> MissedMass:
    """Search from a seed; see :func:`~nfvi.search.search_mass` and :meth:`nfvi.Fit.search`.

    Args:
        guide: q.
        target: p.
        log_evidence: log Z as the guide sees it.
        seed: of all draws.
        traced: whether scores may be traced.
        draws: wide draws; ``None`` for as many as the target is worth.
        starts: of ascents; likewise.
        progress: whether to show that it runs.
        distribute: whether the processes of a group share the evaluations of the target.

    Raises:
        ValueError: ``draws`` or ``starts`` is no whole number above 0; or there is no group.
    """
    if draws is not None:
        check_whole("draws", draws, 1)
    if starts is not None:
        check_whole("starts", starts, 1)
    check_flag("distribute", distribute)
    crew = Crew(Ranks("draws" if distribute else False), target, guide.device, traced)
    generator = torch.Generator(guide.device).manual_seed(seed)

    def work() -> MissedMass:
        with graphs(traced), ticking(progress, "search for missed mass") as tell:

            def told(gradients: int) -> bool:
                tell(f"{gradients:,} gradients" if gradients else "wide draws")
                return False

            return search_mass(
                guide, target, log_evidence, generator, draws=draws, starts=starts, enough=told
            )

    return crew.share(work)
