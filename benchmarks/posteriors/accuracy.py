"""When draws became accurate, and stayed so: where worst b² fell below 0.01 for good."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.moments import Moments

__all__ = ["ENOUGH", "first_for_good", "prefix_bias", "sequential_gradients"]

ENOUGH = 0.01


def first_for_good(bias: Sequence[float], enough: float = ENOUGH) -> int | None:
    """The first index from which on every b² is below a limit; ``None`` if the last is not.

    A value that is below once by chance, and above again, does not count, nor does a NaN.
    """
    first = None
    for i in range(len(bias) - 1, -1, -1):
        if not bias[i] < enough:
            break
        first = i
    return first


def prefix_bias(values: Tensor, reference: Moments) -> Tensor:
    """Worst b² over x and x² of the first t draws of all chains together, t = 1, …, n.

    Args:
        values: (chains, n, K), on the scale of the reference.
        reference: the moments, each (K,).

    Returns:
        (n,), float64.
    """
    x = values.double()
    count = len(x) * torch.arange(1, x.shape[1] + 1, dtype=torch.float64).unsqueeze(-1)
    mean, square = (v.sum(0).cumsum(0) / count for v in (x, x.square()))
    bias = (mean - reference.mean).square() / reference.variance
    square_bias = (square - reference.square_mean).square() / reference.square_variance
    return torch.cat([bias, square_bias], dim=-1).amax(-1)


def sequential_gradients(draw_gradients: Tensor, total: int) -> Tensor:
    """Gradients one after the other in the longest chain up to its draw t, warm-up included.

    Only the total of the warm-up is known, so that each chain is taken to have had its share.

    Args:
        draw_gradients: (chains, n), behind each draw that was kept.
        total: in all chains, warm-up included.

    Returns:
        (n,).
    """
    chains = len(draw_gradients)
    warmup = (total - int(draw_gradients.sum())) / chains
    return warmup + draw_gradients.double().cumsum(1).amax(0)
