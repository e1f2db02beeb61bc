"""The tensors that a guide would have, known before any of them is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from nfvi.flows import Call, lookup
from nfvi.formula import Formula

__all__ = ["Form", "check_state", "forms_of"]


class Form(NamedTuple):
    """What a tensor of a state dict is like.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        trained: whether it is a parameter, and no buffer.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    trained: bool


def forms_of(
    formula: Formula, dim: int, context_dim: int, dtype: torch.dtype, placement: str | None = None
) -> Iterator[tuple[str, Form]]:
    """Name and form of each tensor in the state dict of a guide, one flow after the other.

    No number is made: a flow of each kind is built on torch's meta device, so that a formula costs
    nothing but time, and that little at a time.

    Args:
        formula: of the guide.
        dim: d.
        context_dim: c.
        dtype: of the parameters.
        placement: ``"full"``, ``"diagonal"``, or ``None`` for none.

    Raises:
        ValueError: a flow cannot have this dimension or these options.
    """
    for i, (call, index) in enumerate(formula.in_turn()):
        # All that take turns are one of two kinds.
        for name, form in _of_flow(call, index % 2, dim, context_dim, dtype):
            yield f"flows.{i}.{name}", form
    if placement is not None:
        square = (dim,) if placement == "diagonal" else (dim, dim)
        for name, shape in (("loc", (dim,)), ("tril", square), ("undo", square)):
            yield f"placement.{name}", Form(shape, dtype, trained=False)


def check_state(forms: Iterator[tuple[str, Form]], state: Mapping[str, Tensor]) -> None:
    """Check a state dict against the forms that its tensors should have.

    Forms are asked for one by one, and no more of them than there are tensors.

    Raises:
        ValueError: a tensor is missing, too many, or of another form; the message names it.
    """
    expected = set()
    for name, form in forms:
        if name not in state:
            raise ValueError(
                f"its formula needs {math.prod(form.shape):,} numbers {name!r}, which are not there"
            )
        found = tuple(state[name].shape), state[name].dtype
        if found != (form.shape, form.dtype):
            raise ValueError(
                f"its tensor {name!r} has shape {found[0]} and {found[1]}, and its formula needs"
                f" {form.shape} and {form.dtype}"
            )
        expected.add(name)
    for name in state:
        if name not in expected:
            raise ValueError(f"its formula has no tensor {name!r}")


@lru_cache(maxsize=256)
def _of_flow(
    call: Call, index: int, dim: int, context_dim: int, dtype: torch.dtype
) -> tuple[tuple[str, Form], ...]:
    with torch.device("meta"):
        flow = lookup(call.name).cls(
            dim, **call.kwargs, index=index, context_dim=context_dim, dtype=dtype, device="meta"
        )
    trained = {name for name, _ in flow.named_parameters()}
    return tuple(
        (name, Form(tuple(value.shape), value.dtype, name in trained))
        for name, value in flow.state_dict().items()
    )
