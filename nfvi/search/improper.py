"""Whether a log-density stays as high as it is anywhere, however far one goes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nfvi.search.ascent import Ends, ascend_all
from nfvi.targets import Target

__all__ = ["FAR", "is_improper"]

NEAR = 0.5
"""Nats below the highest end: a Gaussian falls by so much in one sd."""
APART = 3.0
"""In sds of the guide: ends at one mode are nearer."""
FAR = (1e3, 1e5)
"""How far out, in sds of the guide, ascents start along the line through two ends."""
STAYED = 0.1
"""Of that distance: where an ascent ends that found no mode to go back to."""


def is_improper(
    target: Target,
    ends: Ends,
    white: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    enough: Callable[[int], bool],
) -> tuple[bool, int, int]:
    """Whether ascents from ever farther along a ridge of equal height end as high, and as far.

    Of the ends within half a nat of the highest, the two that are farthest apart give the line. On
    a proper target ascents from 10³ and 10⁵ sds out come back, or end far lower.

    Args:
        target: log p.
        ends: of the ascents of a search.
        white: points (n, d) in sds of the guide, from its mean.
        dtype: in which the target is evaluated.
        enough: asked after every batch whether to end early.

    Returns:
        The answer, batches of gradients, and points at which the gradient was taken.
    """
    top = ends.log_p.nan_to_num(-torch.inf).argmax() if len(ends.log_p) else None
    if top is None or not bool(ends.log_p[top].isfinite()):
        return False, 0, 0
    level = ends.log_p[top] - NEAR
    there = (ends.log_p >= level).nonzero()[:, 0]
    length = (white(ends.z[there]) - white(ends.z[top : top + 1])).norm(dim=1)
    if not float(length.max()) >= APART:
        return False, 0, 0
    other = there[length.argmax()]
    step = (ends.z[other] - ends.z[top]) / length.max()
    start = torch.stack([ends.z[top] + side * far * step for far in FAR for side in (-1, 1)])
    found = ascend_all(target, start, dtype, enough)
    away = (white(found.z) - white(ends.z[top : top + 1])).norm(dim=1)
    distance = torch.tensor(FAR).repeat_interleave(2).to(away)
    stays = (found.log_p >= level) & (away >= STAYED * distance)
    improper = bool(stays.reshape(len(FAR), 2).all(0).any())
    return improper, found.iterations, found.gradient_evaluations
