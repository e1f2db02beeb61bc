"""Einstein summation of tensors of logs, as a backend of opt_einsum.

Pyro's own (``pyro.ops.einsum.torch_log``) has a log that vmap does not know, and gives −inf where
two terms peak so far apart that the exponentials of both vanish. This one adds the terms first.
"""

from __future__ import annotations

import torch
from pyro.ops.einsum.util import Tensordot
from torch import Tensor

__all__ = ["einsum", "tensordot", "transpose"]


def transpose(a: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The tensor with its axes in another order."""
    return a.permute(axes)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """log Σ exp of the sum of the operands, over the letters that the output lacks.

    Args:
        equation: such as ``"ij,jk->ik"``.
        operands: tensors of logs, an axis for each letter.

    Example:
        >>> einsum("ij,j->i", torch.zeros(2, 3), torch.zeros(3)).exp().round()
        tensor([3., 3.])
    """
    inputs, output = equation.split("->")
    summed = sorted(set(inputs) - set(output) - {","})
    order = output + "".join(summed)
    terms = [
        _align(operand, letters, order)
        for operand, letters in zip(operands, inputs.split(","), strict=True)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return _logsumexp(total, list(range(len(output), len(order)))) if summed else total.clone()


tensordot = Tensordot(einsum)


def _logsumexp(total: Tensor, axes: list[int]) -> Tensor:
    """log Σ exp over axes; where all is −inf, as its gradient is 0, not torch's NaN."""
    # Impossible transitions of a chain give such sums.
    top = total.detach().amax(axes, keepdim=True).clamp(min=torch.finfo(total.dtype).min)
    summed = (total - top).exp().sum(axes)
    possible = summed > 0
    log = torch.where(possible, summed, 1.0).log() + top.reshape(summed.shape)
    return torch.where(possible, log, -torch.inf)


def _align(operand: Tensor, letters: str, order: str) -> Tensor:
    """The operand with an axis for each letter of the order, of length 1 where it has none."""
    present = [letter for letter in order if letter in letters]
    operand = operand.permute([letters.index(letter) for letter in present])
    sizes = dict(zip(present, operand.shape, strict=True))
    return operand.reshape([sizes.get(letter, 1) for letter in order])
