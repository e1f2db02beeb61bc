"""Gradients of groups of draws, from which the noise of a gradient can be told."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["by_group"]


def by_group(loss: Tensor, flat: Tensor, groups: int) -> Tensor:
    """The gradient of the mean loss over each group of draws or rows: (G, R, P)."""
    n = loss.shape[1]
    groups = min(groups, n)
    member = torch.arange(n, device=loss.device) * groups // n
    weight = torch.nn.functional.one_hot(member, groups).to(loss.dtype).T
    weight = weight / weight.sum(1, keepdim=True)
    weight = weight.unsqueeze(1).expand(-1, loss.shape[0], -1)
    try:
        (gradient,) = torch.autograd.grad(
            loss, flat, weight, retain_graph=True, is_grads_batched=True
        )
    except RuntimeError:  # a backward of the target's own that vmap cannot go through
        rows = [torch.autograd.grad(loss, flat, w, retain_graph=True)[0] for w in weight]
        gradient = torch.stack(rows)
    return gradient
