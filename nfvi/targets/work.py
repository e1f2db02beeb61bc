"""How much work a log-density is, in numbers written, which do not change from run to run."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.factorization import evaluate_anywhere
from nfvi.targets.minibatch import takes_rows
from nfvi.utils import Counter

__all__ = ["costs_by_points", "numbers_per_point", "points_at_once"]

FEWEST = 128
"""Points of a piece: what a call costs whatever its size is then a fifth at most."""
PROBES = 32


@torch.no_grad()
def numbers_per_point(target: Target, z: Tensor) -> float:
    """Numbers that the operations of log p return for each of some points z (n, d).

    They are counted once for each target. Seconds would be others in every run, and with them what
    a seed gives. 10⁴ numbers a point are about a second for 10⁵ points on one core.

    Args:
        target: log p.
        z: some tens of points.
    """
    known = target.counted if target.work is None else target.work
    if known is not None:
        return known
    # Never by a graph, whose operations are fewer.
    evaluate = partial(evaluate_anywhere, target.log_prob, z, target.name)
    evaluate()  # the first call may check the target, which is other work
    if target.work is None:
        with Counter() as counter:
            evaluate()
        # Under vmap a function of torch sees one point, and runs once for all.
        target.counted = counter.numbers / (1 if target.batching == "vmap" else len(z))
        return target.counted
    return target.work


def points_at_once(target: Target, z: Tensor, numbers: float) -> int:
    """How many of many points (n, d) a CPU evaluates at once: 128 at least, or all n.

    Tensors of over 32 MB are mapped into memory anew each time, and small ones stay in the caches.
    Targets that go in pieces themselves are given all points.

    Args:
        target: log p.
        z: the points.
        numbers: that the operations of log p may return for a piece.
    """
    by_itself = costs_by_points(target) or takes_rows(target)
    if by_itself or z.device.type != "cpu" or len(z) <= FEWEST:
        return len(z)
    return max(int(numbers / max(numbers_per_point(target, z[:PROBES]), 1.0)), FEWEST)


def costs_by_points(target: Target) -> bool:
    """Whether half a batch takes half the time: log p is another library's, or point by point.

    Elsewhere a call costs much the same for some thousand points, and graphs are made for batches
    of one size.
    """
    return target.differentiable_once or target.batching == "loop"
