"""Draws of a guide with log p and log q, piece by piece, and no more of them kept than is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nfvi.guides import AnyGuide, draws_at_once
from nfvi.targets import Target, log_prob_anywhere
from nfvi.training import Ranks
from nfvi.utils import sizes

__all__ = ["Evaluated", "drawn", "evaluate"]

# Draws at once: enough that a batch costs no more than its arithmetic. They are fewer where they
# would not fit into memory.
CHUNK = 4_096


@dataclass(frozen=True)
class Evaluated:
    """Draws of a guide with what was asked of them.

    Attributes:
        z: the first of them (m, d).
        log_p: log p(z) (n), unnormalised.
        log_q: log q(z) (n).
        finite: whether all coordinates are (n).
        at_edge: how many have a value of a site on an edge of its support.
    """

    z: Tensor
    log_p: Tensor
    log_q: Tensor
    finite: Tensor
    at_edge: int


@torch.no_grad()
def evaluate(
    guide: AnyGuide,
    target: Target,
    n: int,
    generator: torch.Generator,
    *,
    keep: int | None = None,
    edges: bool = False,
    ranks: Ranks | None = None,
) -> Evaluated:
    """n draws with log p and log q, in pieces of 4 096 or of what fits into memory.

    Args:
        guide: q.
        target: p.
        n: how many.
        generator: of the draws.
        keep: how many of the draws themselves are kept, 0 for none; default all.
        edges: whether to look for values on an edge.
        ranks: processes that share the values of log p; default this one alone.
    """
    ranks = Ranks() if ranks is None else ranks
    of_target = partial(log_prob_anywhere, target)
    keep = n if keep is None else keep
    kept, rows, at_edge, left = [], [], 0, keep
    for z, log_q in drawn(guide, n, generator):
        rows.append((ranks.values(of_target, z).detach(), log_q, z.isfinite().all(-1)))
        at_edge += int(target.on_edge(z).sum()) if edges else 0
        kept.append(z[:left] if left >= len(z) else z[:left].clone())
        left = max(left - len(z), 0)
    log_p, log_q, finite = (torch.cat(row) for row in zip(*rows, strict=True))
    return Evaluated(torch.cat(kept), log_p, log_q, finite, at_edge)


def drawn(guide: AnyGuide, n: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """n draws z (m, d) and log q(z) (m), piece by piece; the same for a state of the generator."""
    for size in sizes(n, draws_at_once(guide, CHUNK)):
        with torch.no_grad():
            piece = guide.rsample_and_log_prob(size, generator=generator)
        yield piece
