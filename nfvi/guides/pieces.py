"""Draws and densities of a guide in pieces that fit into memory; no gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.guides.guide import Guide
from nfvi.guides.mixture import AnyGuide, parts
from nfvi.utils import Numbers, at_once, numbers_per_row

__all__ = ["draws_at_once", "log_prob_in_pieces", "numbers_of", "sample_in_pieces"]


def numbers_of(guide: AnyGuide) -> Numbers:
    """What a draw of a guide and its log-density take; of a mixture the most of its components."""
    found = [_numbers_of_one(part) for part in parts(guide)]
    return Numbers(max(one.widest for one in found), max(one.written for one in found))


def _numbers_of_one(guide: Guide) -> Numbers:
    # What only has the methods of a guide is asked for nothing else.
    known = isinstance(guide, Guide)
    return numbers_per_row(_Draw(guide)) if known else Numbers(guide.dim, guide.dim)


def draws_at_once(guide: AnyGuide, most: int) -> int:
    """How many draws of a guide to take at once, up to so many."""
    return at_once(numbers_of(guide).widest, most, guide.device)


@torch.no_grad()
def sample_in_pieces(guide: AnyGuide, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n draws (n, d), which for a single flow are those of ``guide.sample`` in any case."""
    count = draws_at_once(guide, n)
    if count == n:
        return guide.sample(n, generator=generator)
    if isinstance(guide, Guide):
        drawn = guide.base_sample(n, generator=generator)
        for part in drawn.split(count):
            part.copy_(guide.transform(part)[0])
        return drawn
    drawn = torch.empty(n, guide.dim, dtype=guide.dtype, device=guide.device)
    for part in drawn.split(count):
        part.copy_(guide.sample(len(part), generator=generator))
    return drawn


def log_prob_in_pieces(guide: AnyGuide, x: Tensor) -> Tensor:
    """log q(x) (\\*) at points x (\\*, d); in one piece where a gradient is asked for."""
    if torch.is_grad_enabled() and (x.requires_grad or _learns(guide)):
        return guide.log_prob(x)
    rows = x.reshape(-1, x.shape[-1])
    count = draws_at_once(guide, max(len(rows), 1))
    if count >= len(rows):
        return guide.log_prob(x)
    return torch.cat([guide.log_prob(part) for part in rows.split(count)]).reshape(x.shape[:-1])


def _learns(guide: AnyGuide) -> bool:
    return any(p.requires_grad for p in guide.parameters())


class _Draw:
    """n draws at the centre of the base, there and back."""

    def __init__(self, guide: Guide) -> None:
        self.guide = guide

    def __call__(self, n: int) -> None:
        guide = self.guide
        z = torch.zeros(n, guide.dim, dtype=guide.dtype, device=guide.device)
        context = z.new_zeros(n, guide.context_dim) if guide.context_dim else None
        guide.log_prob(guide(z, context)[0], z, context)
