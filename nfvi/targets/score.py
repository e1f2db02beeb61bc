"""A target's log-density with its gradient, at points that may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.targets.anywhere import log_prob_anywhere
from nfvi.targets.base import Target

__all__ = ["log_prob_and_score"]


def log_prob_and_score(target: Target, z: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """β log p(z) (n) and its gradient (n, d) at points (n, d); NaN where a factorisation fails.

    The rest of a batch in which one fails is found as by :func:`~nfvi.targets.log_prob_anywhere`.
    """
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        log_p = beta * log_prob_anywhere(target, leaf)
        (score,) = torch.autograd.grad(log_p.sum(), leaf)
    return log_p.detach(), score
