"""Factorisations of a batch of matrices in which some have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nfvi.targets.checks import Evaluate, checked_call

__all__ = ["NanWhereSingular", "evaluate_anywhere"]

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]


class NanWhereSingular(TorchFunctionMode):
    """Makes factors NaN where a matrix has none, in place of an error for the whole batch.

    While it is entered, ``torch.linalg.cholesky``, ``inv`` and ``solve`` answer by the functions of
    torch that give an ``info`` for each matrix. What they give of the other matrices is the same.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        instead = INSTEAD.get(func)
        if instead is None or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        factor, info = instead(*args, **kwargs)
        return _marked(factor, info)


INSTEAD: dict[Callable[..., Any], Callable[..., tuple[Tensor, Tensor]]] = {
    torch.linalg.cholesky: torch.linalg.cholesky_ex,
    torch.cholesky: lambda input, upper=False: torch.linalg.cholesky_ex(input, upper=upper),
    torch.Tensor.cholesky: lambda self, upper=False: torch.linalg.cholesky_ex(self, upper=upper),
    torch.linalg.inv: torch.linalg.inv_ex,
    torch.inverse: torch.linalg.inv_ex,
    torch.Tensor.inverse: torch.linalg.inv_ex,
    torch.linalg.solve: torch.linalg.solve_ex,
}


def _marked(factor: Tensor, info: Tensor) -> Tensor:
    """NaN where ``info`` is not 0; as a factor, which makes the gradient NaN there, too."""
    good = torch.where(info == 0, 1.0, torch.nan).to(factor.dtype)
    return factor * good.reshape(*good.shape, *(1,) * (factor.dim() - good.dim()))


def evaluate_anywhere(evaluate: Evaluate, z: Tensor, name: str) -> Tensor:
    """A function of points (n, d) -> (n,) at z, NaN where a factorisation fails.

    Args:
        evaluate: the function.
        z: points (n, d), of which some may be at fault.
        name: what messages call it.

    Raises:
        TargetError: the values are not (n), or the function wrote into z.
    """
    try:
        return checked_call(evaluate, z, name)
    except LinAlgError:
        return _in_spite_of_failures(evaluate, z, name)


def _in_spite_of_failures(evaluate: Evaluate, z: Tensor, name: str) -> Tensor:
    try:
        with NanWhereSingular():
            return checked_call(evaluate, z, name)
    except LinAlgError:
        if len(z) == 1:
            return z.sum(-1) * torch.nan
        return torch.cat([evaluate_anywhere(evaluate, part, name) for part in z.tensor_split(2)])
