"""Loss and gradient of a step as one traced graph, where that pays and gives the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from nfvi.tracing import Traced, TraceError, same, traced
from nfvi.training.ensemble import Ensemble
from nfvi.training.objectives import Objective

__all__ = ["EAGER", "Compile", "Differentiated", "TracedStep", "check_compile", "why_eager"]

logger = logging.getLogger(__name__)

Compile: TypeAlias = Literal["trace", False]

TRACED, EAGER = "traced", "eager: "
# A trace costs 0.2 to 1.5 s of CPU once, and a second more in a process that never traced; what it
# saves a step (benchmarks/step.py) makes up for that after 120 to 250 steps.
LEAST_STEPS = 300
# Costs a fifth of a percent. With more a target that changes on the way is noticed later.
LOOK_AGAIN = 500
# Far enough that other numbers run through every branch of a flow, near enough to stay finite.
SPREAD = 0.05
POINTS = 2


def check_compile(value: Any) -> None:
    """Check the argument ``compile`` of a fit.

    Raises:
        ValueError: it is neither ``"trace"`` nor ``False``.
    """
    if value != "trace" and value is not False:
        raise ValueError(f'compile must be "trace" or False, got {value!r}')


def why_eager(
    compile: Compile, steps: int, device: torch.device, otherwise: Mapping[str, bool]
) -> str | None:
    """Why the steps of a fit are left to autograd; ``None`` where a trace is tried.

    Args:
        compile: as for ``NFVI.fit``.
        steps: of the whole fit, whether or not it was stopped and resumed on the way, so that a
            resumed fit goes on as it would have.
        device: of the guide.
        otherwise: further reasons, and whether each holds.
    """
    reasons = {
        "compile=False": compile is False,
        f"fewer than {LEAST_STEPS:,} steps": steps < LEAST_STEPS,
        "not on the CPU": device.type != "cpu",
        **otherwise,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class Differentiated(NamedTuple):
    """One term a draw (R, n), loss and recorded quantity, and the gradient (R, P)."""

    terms: Tensor
    quantity: Tensor
    gradient: Tensor


class TracedStep:
    """Evaluates an objective and its gradient by a graph that is traced at the first step.

    The graph is verified at the first step's numbers and at fresh ones, and again on every 500th
    step. Where it is not equal to autograd to the last bit, all steps are left to autograd, so that
    the result for a seed never depends on it.

    Args:
        reason: why all steps are left to autograd; ``None`` to trace.

    Attributes:
        reason: the same, also as found while running.
    """

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        self._graph: Traced | None = None
        self._kind: list[tuple[torch.Size, torch.dtype]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Without the graph, which is code: it is traced again."""
        return {**self.__dict__, "_graph": None}

    @property
    def text(self) -> str:
        """``"traced"``, or ``"eager: "`` and the reason, for ``fit.settings``."""
        return TRACED if self.reason is None else EAGER + self.reason

    def take_up(self, text: str | None) -> None:
        """Stay with autograd where a checkpoint says so by what :attr:`text` was."""
        if self.reason is None and text is not None and text.startswith(EAGER):
            self.reason = text.removeprefix(EAGER)

    def __call__(
        self, ensemble: Ensemble, objective: Objective, batch: Any, beta: Tensor, step: int
    ) -> Differentiated | None:
        """The values of a step, counted from 0; ``None`` where autograd is to find them."""
        if self.reason is not None:
            return None
        evaluate = _evaluation(ensemble, objective, batch)
        inputs = (ensemble.flat.detach(), beta, *objective.tensors(batch))
        kind = [(x.shape, x.dtype) for x in inputs]
        if self._graph is None:
            points = [inputs, *_fresh(ensemble, objective, beta)]
            try:
                self._graph, self._kind = traced(evaluate, points), kind
            except TraceError as error:
                self.reason = str(error)
                logger.info("steps run as written, since they cannot be traced: %s", self.reason)
                return None
        if kind != self._kind:
            return None
        try:
            values = self._graph(*inputs)
        except RuntimeError:  # a factorisation that fails, most likely, which the objective knows
            return None
        if step % LOOK_AGAIN == LOOK_AGAIN - 1 and not same(values, evaluate(*inputs)):
            self.reason = f"at step {step + 1} the target was no longer what had been traced"
            logger.info("steps run as written from now on: %s", self.reason)
            return None
        terms, quantity, gradient = values
        # Contiguous, as autograd accumulates it; a copy, as the loop clips it in place.
        return Differentiated(
            terms, quantity, gradient.clone(memory_format=torch.contiguous_format)
        )


def _evaluation(
    ensemble: Ensemble, objective: Objective, like: Any
) -> Callable[..., tuple[Tensor, ...]]:
    """Terms, quantity and gradient as a function of parameters, β and the tensors of a batch."""

    def evaluate(flat: Tensor, beta: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaf = flat.detach().requires_grad_()
            batch = objective.batch_of(tensors, like)
            terms, quantity = objective(ensemble.at(leaf), batch, beta)
            (gradient,) = torch.autograd.grad(terms.mean(1).sum(), leaf)
        return terms.detach(), quantity.detach(), gradient

    return evaluate


def _fresh(ensemble: Ensemble, objective: Objective, beta: Tensor) -> list[tuple[Tensor, ...]]:
    """Inputs of other numbers: parameters near the present ones, other draws or rows, other β."""
    flat = ensemble.flat.detach()
    generator = torch.Generator(flat.device).manual_seed(0)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    points, spare = [], objective.spare()
    for k in range(POINTS):
        batch = spare.draw(ensemble, k + 1, generator)
        other = normal(beta).sigmoid()
        points.append((flat + SPREAD * normal(flat), other, *objective.tensors(batch)))
    return points
