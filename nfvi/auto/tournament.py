"""Several families side by side, for the few dimensions in which ridges and waves can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from nfvi.auto.record import Record
from nfvi.auto.rungs import Learned, candidates, prolonged, settled, sharpened
from nfvi.fit import KHAT_LIMIT
from nfvi.guides import AnyGuide, Guide, Placement, parts

__all__ = ["ALL_BUT_TAILS", "DONE", "NEAR", "tournament"]

# So near, tails are what is left to mend.
NEAR = 0.05
# The others are not tried where the first comes so far.
ENOUGH = 0.5
# (k-hat, nats), after natural gradients. On a banana of curvature 10 they see little of what they
# miss: where they end further off, many steps of Adam are sure.
DONE = (0.5, 0.01)
ALL_BUT_TAILS = (KHAT_LIMIT, 0.005)

Learn: TypeAlias = Callable[[Learned, Sequence[Guide | Placement]], AnyGuide]


def tournament(record: Record, learn: Learn, device: torch.device) -> None:
    """Fit several families in a few dimensions; the best continues for longer.

    Args:
        record: of the climb.
        learn: fits one rung from its starts, and keeps it.
        device: of the guides.
    """
    dim = record.target.dim
    place = Placement.identity(dim, dtype=torch.float64, device=device)
    tried = candidates(dim)
    first, guides = len(record.rungs), []
    for rung in tried:
        guides.append(learn(rung, [place] * len(rung.tempered)))
        if record.gap() <= NEAR and record.last.efficiency > ENOUGH:
            break
    best = max(range(len(guides)), key=lambda i: record.scores[first + i])
    _prolong(record, learn, tried[best], guides[best])


def _prolong(record: Record, learn: Learn, rung: Learned, guide: AnyGuide) -> None:
    """Go on with one of them: each way costs more than the one before."""
    guide = learn(sharpened(rung), parts(guide))
    if _within(record, DONE):
        return
    if record.gap() <= DONE[1]:
        guide = learn(settled(rung), parts(guide))
        if _within(record, ALL_BUT_TAILS):
            return
    longer = prolonged(rung)
    guide = learn(longer, parts(guide))
    if record.last.khat >= KHAT_LIMIT:
        learn(replace(longer, lr=longer.lr / 2), parts(guide))


def _within(record: Record, limits: tuple[float, float]) -> bool:
    """Whether the last rung is below limits of k-hat and of nats below its log evidence."""
    return record.last.khat < limits[0] and record.gap() <= limits[1]
