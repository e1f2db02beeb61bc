"""A whole step of a fit as compiled code: loss, gradient, guard, Adam and record in few kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nfvi.tracing import TraceError, compiled_in_place
from nfvi.training.branch_free import BranchFreeStep
from nfvi.utils import unvalidated

__all__ = ["compiled_step", "nearly"]

# Sums in another order, and their differences in a gradient. Not measured: an operation that is
# left out changes more.
NEAR = 1e-3


def compiled_step(
    step: BranchFreeStep, points: Sequence[Sequence[Tensor]], lr: float
) -> Callable[[], None]:
    """What does the same as ``step()`` to rounding, by the code of PyTorch's inductor.

    Args:
        step: on a fit, whose state it changes.
        points: parameters (R, P), β (R) and the tensors of a batch, at which both are compared.
        lr: the learning rate to compare them at.

    Raises:
        TraceError: it cannot be compiled here, or gives other numbers.
    """
    before = step.memory.copies()
    place(step, points[0], lr)
    with unvalidated():  # the compiler keeps its state in globals
        run = compiled_in_place(lambda *tensors: step.on(tensors), step.tensors())

    def compiled() -> None:
        run(step.tensors())

    for point in points:
        values = []
        for way in (step, compiled):
            step.memory.put_back(before)
            place(step, point, lr)
            way()
            values.append([*step.memory.copies(), step.tables.record(1)])
        if not all(map(nearly, *values)):
            raise TraceError("the compiled step gives other numbers")
    return compiled


def place(step: BranchFreeStep, point: Sequence[Tensor], lr: float) -> None:
    """Let the next step be the first of a chunk, at other parameters, β and batch."""
    flat, beta, *batch = point
    step.tables.fill([lr], beta.unsqueeze(0))
    step.take(batch)
    with torch.no_grad():
        step.memory.flat.copy_(flat)


def nearly(a: Tensor, b: Tensor) -> bool:
    """Whether tensors are equal but for rounding, beside the largest number of them."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = b[b.isfinite()]
    scale = float(finite.abs().max()) if len(finite) else 1.0
    return torch.allclose(a, b, rtol=NEAR, atol=NEAR * scale, equal_nan=True)
