"""From what the user calls an optimiser to one that drives a matrix of restarts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, optim

from nfvi.training.natural_gradient import NaturalGradient
from nfvi.training.without_compiler import WithoutCompiler

__all__ = [
    "Adam",
    "OptimizerSpec",
    "check_rates",
    "is_default",
    "is_natural",
    "keep_rows",
    "make_optimizer",
    "move_rows",
    "row_wise",
]

OptimizerSpec: TypeAlias = type[optim.Optimizer] | Callable[[list[Tensor]], optim.Optimizer] | None

# `monotone*3` on pot1 (600 steps of 128 even draws, two seeds) ends at KL 0.02 with it, at 0.06
# with a quarter, and runs off in one of the two with four times as much. Families may ask for
# less.
LEARNING_RATE = 0.02
# β₂ below Adam's own 0.999: a fit has thousands of steps, and its gradients shrink all the time.
BETAS = (0.9, 0.99)

_ROW_WISE = (
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Adagrad,
    optim.Adadelta,
    optim.SGD,
    optim.ASGD,
    optim.Rprop,
    NaturalGradient,
)
_BY_MATRIX = ("Muon", "Adafactor", "SparseAdam")


class Adam(WithoutCompiler, optim.Adam):
    """Fused Adam, to the last bit, without what ``torch.optim`` brings for its own compiler.

    Args:
        parameters: one leaf tensor.
        lr: learning rate at the top of the schedule.
    """

    def __init__(self, parameters: Tensor, lr: float) -> None:
        super().__init__([parameters], lr=lr, betas=BETAS, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; ``closure`` is not needed, and not called."""
        (group,) = self.param_groups
        (parameters,) = group["params"]
        state = self.state[parameters]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameters.device)
            state["exp_avg"] = torch.zeros_like(parameters)
            state["exp_avg_sq"] = torch.zeros_like(parameters)
        state["step"] += 1
        torch._fused_adam_(
            [parameters],
            [parameters.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def row_wise(optimizer: OptimizerSpec) -> bool:
    """Whether an optimiser is known to treat each entry, and so each restart, by itself."""
    if optimizer is None:
        return True
    return inspect.isclass(optimizer) and issubclass(optimizer, _ROW_WISE)


def is_natural(optimizer: OptimizerSpec) -> bool:
    """Whether an optimiser is :class:`NaturalGradient`, whose steps are few and of many draws."""
    return inspect.isclass(optimizer) and issubclass(optimizer, NaturalGradient)


def is_default(optimizer: optim.Optimizer) -> bool:
    """Whether an optimiser is the Adam that ``None`` makes, whatever its learning rate."""
    return type(optimizer) is Adam


def make_optimizer(spec: OptimizerSpec, parameters: Tensor, lr: float | None) -> optim.Optimizer:
    """The optimiser for one leaf tensor (R, P).

    Args:
        spec: ``None`` for Adam with (β₁, β₂) = (0.9, 0.99) and learning rate 0.02, a
            ``torch.optim`` class, or a function from a list of parameters to an optimiser.
        parameters: the leaf tensor.
        lr: learning rate at the top of the schedule; ``None`` for the class's own default.

    Raises:
        TypeError: ``spec`` is none of these, or does not return an optimiser.
        ValueError: ``lr`` is given beside a function, which sets its own; or the optimiser
            works on matrices or sparse gradients and has no meaning for a vector of parameters.
    """
    if spec is None:
        optimizer: Any = Adam(parameters, LEARNING_RATE if lr is None else lr)
    elif inspect.isclass(spec) and issubclass(spec, optim.Optimizer):
        options: dict[str, Any] = {} if lr is None else {"lr": lr}
        optimizer = spec([parameters], **options)
    elif callable(spec) and not inspect.isclass(spec):
        if lr is not None:
            raise ValueError(f"lr={lr!r} beside an optimizer function: set it inside the function")
        optimizer = spec([parameters])
    else:
        raise TypeError(f"optimizer={spec!r}: give a torch.optim class or a function of parameters")
    if not isinstance(optimizer, optim.Optimizer):
        raise TypeError(f"optimizer= returned {type(optimizer).__name__}, not a torch optimizer")
    if type(optimizer).__name__ in _BY_MATRIX:
        raise ValueError(
            f"optimizer={type(optimizer).__name__} needs matrices or sparse gradients, and the"
            " parameters of a guide are one dense vector; try torch.optim.Adam"
        )
    if parameters.shape[0] > 1 and not isinstance(optimizer, _ROW_WISE):
        raise ValueError(
            f"optimizer={type(optimizer).__name__} may mix the restarts of one fit; pass restarts=1"
        )
    return optimizer


def check_rates(
    rates: Tensor | None, parameters: Tensor, optimizer: optim.Optimizer
) -> Tensor | None:
    """Factors for the learning rate of each row of parameters (R, P), ``None`` where all are 1.

    Raises:
        ValueError: they are not R positive numbers, or the optimiser may mix rows.
    """
    if rates is None or bool((rates == 1).all()):
        return None
    if rates.shape != (len(parameters),) or not bool(((rates > 0) & rates.isfinite()).all()):
        raise ValueError(f"rates must be {len(parameters)} positive numbers, got {rates.tolist()}")
    if not row_wise(type(optimizer)):
        raise ValueError(f"{type(optimizer).__name__} may mix restarts and cannot take rates")
    return rates.to(parameters)


def keep_rows(optimizer: optim.Optimizer, parameters: Tensor) -> Callable[[Tensor], None]:
    """Remember parameters and optimiser state; the function returned puts chosen rows back.

    The function takes a mask (R) that is true for the rows that may keep the step. State that
    the step itself creates is left as it is: it comes from a gradient of 0.
    """
    state = {
        key: value.clone()
        for key, value in optimizer.state.get(parameters, {}).items()
        if _by_row(value, parameters)
    }
    before = parameters.detach().clone()

    @torch.no_grad()
    def restore(good: Tensor) -> None:
        mask = good.unsqueeze(1)
        parameters.copy_(torch.where(mask, parameters, before))
        for key, value in state.items():
            now = optimizer.state[parameters][key]
            now.copy_(torch.where(mask, now, value))

    return restore


def move_rows(optimizer: torch.optim.Optimizer, old: Tensor, new: Tensor, rows: Tensor) -> None:
    """Hand what an optimiser knows of one leaf tensor (R, P) to the leaf of some of its rows."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if state is not None:
        optimizer.state[new] = {
            name: value[rows] if _by_row(value, old) else value for name, value in state.items()
        }


def _by_row(value: Any, parameters: Tensor) -> bool:
    """Whether a part of the state of an optimiser has a row for each row of parameters (R, P)."""
    if not isinstance(value, Tensor):
        return False
    return value.shape in (parameters.shape, (len(parameters), 1))
