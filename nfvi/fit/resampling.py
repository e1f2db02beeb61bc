"""Draws of a guide chosen by their importance weights."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.diagnostics import WeightedDraws, draw_weighted
from nfvi.fit.evaluation import drawn
from nfvi.guides import AnyGuide
from nfvi.targets import Target
from nfvi.utils import held

__all__ = ["resample"]

# Draws for each that is chosen, and the least of them.
DRAWS = 10
FEWEST = 10_000


def resample(
    guide: AnyGuide, target: Target, n: int, generator: torch.Generator
) -> tuple[Tensor, WeightedDraws]:
    """n of 10 n draws, at least 10 000, chosen with replacement by their weights (n, d); and all.

    Where so many do not fit into memory, the weights are found first, and the draws that are chosen
    are then made anew.

    Raises:
        FitError: no draw has any weight.
    """
    count = max(DRAWS * n, FEWEST)
    whole = held(count, guide.dim) == count
    before = torch.Generator(generator.device)
    before.set_state(generator.get_state())
    draws = draw_weighted(guide, target, count, generator, keep=count if whole else 0)
    if not bool((draws.log_weights > -torch.inf).any()):
        raise FitError("no draw of the guide has a finite log-density under the target")
    # torch.multinomial takes at most 2²⁴ categories, and inverting the CDF is as good.
    total = draws.log_weights.exp().cumsum(0)
    uniform = torch.rand(n, generator=generator, dtype=total.dtype, device=total.device)
    index = torch.searchsorted(total, uniform * total[-1]).clamp_max(len(total) - 1)
    return (draws.z[index] if whole else _redrawn(guide, count, before, index)), draws


def _redrawn(guide: AnyGuide, n: int, generator: torch.Generator, index: Tensor) -> Tensor:
    """Those of n draws that an index (m) says, with the generator as it was before them."""
    found = torch.empty(len(index), guide.dim, dtype=guide.dtype, device=guide.device)
    first = 0
    for z, _ in drawn(guide, n, generator):
        here = (index >= first) & (index < first + len(z))
        found[here] = z[index[here] - first]
        first += len(z)
    return found
