"""How much work a log-density is, in numbers written, which do not change from run to run."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nfvi.targets.anywhere import evaluate_anywhere
from nfvi.targets.base import Target
from nfvi.utils import Counter

__all__ = ["numbers_per_point"]


@torch.no_grad()
def numbers_per_point(target: Target, z: Tensor) -> float:
    """Numbers that the operations of log p return for each of some points z (n, d).

    Seconds would be others in every run, and with them what a seed gives. 10⁴ numbers a point are
    about a second for 10⁵ points on one core.

    Args:
        target: log p.
        z: some tens of points.
    """
    # Never by a graph, whose operations are fewer.
    evaluate = partial(evaluate_anywhere, target.log_prob, z, target.name)
    evaluate()  # the first call may check the target, which is other work
    if target.work is not None:
        return target.work
    with Counter() as counter:
        evaluate()
    # Under vmap a function of torch sees one point, and runs once for all.
    numbers: int = counter.numbers
    return numbers / (1 if target.batching == "vmap" else len(z))
