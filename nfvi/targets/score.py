"""A target's log-density with its gradient, at points that may be anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.targets.base import Target
from nfvi.targets.checks import checked_call

__all__ = ["log_prob_and_score"]


def log_prob_and_score(target: Target, z: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """β log p(z) (n) and its gradient (n, d) at points (n, d); NaN where a factorisation fails.

    As in :func:`~nfvi.targets.log_prob_anywhere`, a batch that fails is halved until only
    the points at fault are left.
    """
    leaf = z.detach().requires_grad_()
    try:
        with torch.enable_grad():
            log_p = beta * checked_call(target.log_prob, leaf, target.name)
            (score,) = torch.autograd.grad(log_p.sum(), leaf)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if len(z) == 1:
            return z.new_full((1,), torch.nan), torch.full_like(z, torch.nan)
        halves = [log_prob_and_score(target, part, beta) for part in z.tensor_split(2)]
        (first, first_score), (last, last_score) = halves
        return torch.cat([first, last]), torch.cat([first_score, last_score])
    return log_p.detach(), score
