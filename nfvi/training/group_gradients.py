"""Gradients of groups of draws, from which the noise of a gradient can be told."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["by_group"]


def by_group(
    loss: Tensor, flat: Tensor, groups: int, first: int = 0, n: int | None = None
) -> Tensor:
    """The gradient of the mean loss over each group of draws or rows: (G, R, P).

    Args:
        loss: one term each (R, m), of all n of them or of a piece.
        flat: the parameters (R, P).
        groups: G, or n where that is less.
        first: where the piece begins; the gradients of all pieces add up.
        n: of all pieces together.
    """
    n = loss.shape[1] if n is None else n
    groups = min(groups, n)
    member = torch.arange(n, device=loss.device) * groups // n
    weight = torch.nn.functional.one_hot(member, groups).to(loss.dtype).T
    weight = (weight / weight.sum(1, keepdim=True))[:, first : first + loss.shape[1]]
    weight = weight.unsqueeze(1).expand(-1, loss.shape[0], -1)
    try:
        (gradient,) = torch.autograd.grad(
            loss, flat, weight, retain_graph=True, is_grads_batched=True
        )
    except RuntimeError:  # a backward of the target's own that vmap cannot go through
        rows = [torch.autograd.grad(loss, flat, w, retain_graph=True)[0] for w in weight]
        gradient = torch.stack(rows)
    return gradient
