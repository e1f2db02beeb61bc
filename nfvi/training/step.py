"""Loss and gradient of a step as one traced graph, where that pays and gives the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from nfvi.tracing import Traced, TraceError, compiled, traced
from nfvi.training.ensemble import Ensemble
from nfvi.training.objectives import Objective
from nfvi.utils import unvalidated

__all__ = [
    "EAGER",
    "LOOK_AGAIN",
    "Compile",
    "Differentiated",
    "TracedStep",
    "check_compile",
    "evaluation",
    "fresh_points",
    "graph_of",
    "why_eager",
]

logger = logging.getLogger(__name__)

Compile: TypeAlias = Literal["trace", "inductor", False]

TRACED, COMPILED, EAGER = "traced", "compiled", "eager: "
# A trace costs 0.1 to 0.8 s of CPU once. What it saves a step (benchmarks/step.py) makes up for it
# after 2 to 80 steps. To compile takes half a minute.
LEAST_STEPS, LEAST_COMPILED = 100, 300
# A capture and the look at its first step take as long as some ten steps without it.
LEAST_CAPTURED = 50
# Costs a fifth of a percent. With more a target that changes on the way is noticed later.
LOOK_AGAIN = 500
# Far enough that other numbers run through every branch of a flow, near enough to stay finite.
SPREAD = 0.05
POINTS = 2


def check_compile(value: Any) -> None:
    """Check the argument ``compile`` of a fit.

    Raises:
        ValueError: it is none of ``"trace"``, ``"inductor"`` and ``False``.
    """
    if value not in ("trace", "inductor") and value is not False:
        raise ValueError(f'compile must be "trace", "inductor" or False, got {value!r}')


def why_eager(
    compile: Compile, steps: int, device: torch.device, otherwise: Mapping[str, bool]
) -> str | None:
    """Why the steps of a fit are left to autograd; ``None`` where a trace or a capture is tried.

    Args:
        compile: as for ``NFVI.fit``.
        steps: of the whole fit, whether or not it was stopped and resumed on the way, so that a
            resumed fit goes on as it would have.
        device: of the guide.
        otherwise: further reasons, and whether each holds.
    """
    on_the_cpu = LEAST_COMPILED if compile == "inductor" else LEAST_STEPS
    least = on_the_cpu if device.type == "cpu" else LEAST_CAPTURED
    reasons = {
        "compile=False": compile is False,
        "neither on the CPU nor on CUDA": device.type not in ("cpu", "cuda"),
        f"fewer than {least:,} steps": steps < least,
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

    Where restarts are pruned, it is traced again.

    The graph is verified at the first step's numbers and at fresh ones, and again on every 500th
    step. Where it is not equal to autograd to the last bit, all steps are left to autograd, so that
    the result for a seed never depends on it.

    Args:
        reason: why all steps are left to autograd; ``None`` to trace.
        compile: as for ``NFVI.fit``. A compiled graph is verified to rounding.

    Attributes:
        reason: the same, also as found while running.
        compile: the same.
    """

    ahead: ClassVar[bool] = False
    """Whether :meth:`advance` may do steps by itself."""

    def __init__(self, reason: str | None = None, compile: Compile = "trace") -> None:
        self.reason, self.compile = reason, compile
        self._graph: Traced | None = None
        self._not_compiled: str | None = None
        self._kind: list[tuple[torch.Size, torch.dtype]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Without the graph, which is code: it is traced again."""
        return {**self.__dict__, "_graph": None}

    @property
    def text(self) -> str:
        """How steps are run, and a reason where it is not as asked, for ``fit.settings``."""
        if self.reason is not None:
            return EAGER + self.reason
        if self.compile != "inductor":
            return TRACED
        return COMPILED if self._not_compiled is None else f"{TRACED}: {self._not_compiled}"

    def take_up(self, text: str | None) -> None:
        """Stay with autograd where a checkpoint says so by what :attr:`text` was."""
        if self.reason is None and text is not None and text.startswith(EAGER):
            self.reason = text.removeprefix(EAGER)

    def rate(self, value: float) -> float:
        """A learning rate as steps take it."""
        return value

    @contextmanager
    def running(self, loop: Any, groups: bool) -> Iterator[None]:
        """For a run of a loop, with whether a callback wants gradients by groups."""
        yield

    def advance(self, loop: Any, most: int, eager: Callable[[Any], None]) -> int:
        """Do some steps of a loop, as many as can be done before the host must look.

        Args:
            loop: the :class:`~nfvi.training.loop_state.LoopState`.
            most: how many at most.
            eager: does the next step on a batch as it is written.

        Returns:
            How many were done; 0 where the loop is to do the next one itself.
        """
        return 0

    def __call__(
        self, ensemble: Ensemble, objective: Objective, batch: Any, beta: Tensor, step: int
    ) -> Differentiated | None:
        """The values of a step, counted from 0; ``None`` where autograd is to find them."""
        if self.reason is not None:
            return None
        evaluate = evaluation(ensemble, objective, batch)
        inputs = (ensemble.flat.detach(), beta, *objective.tensors(batch))
        kind = [(x.shape, x.dtype) for x in inputs]
        if self._kind and len(ensemble.flat) < self._kind[0][0][0]:
            self._graph = None  # of restarts that were pruned since
        if self._graph is None:
            points = [inputs, *fresh_points(ensemble, objective, beta)]
            try:
                self._graph, self._not_compiled = graph_of(evaluate, points, self.compile)
                self._kind = kind
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
        if step % LOOK_AGAIN == LOOK_AGAIN - 1 and not self._graph.agrees(
            values, evaluate(*inputs)
        ):
            self.reason = f"at step {step + 1} the target was no longer what had been traced"
            logger.info("steps run as written from now on: %s", self.reason)
            return None
        terms, quantity, gradient = values
        # Contiguous, as autograd accumulates it; a copy, as the loop clips it in place.
        return Differentiated(
            terms, quantity, gradient.clone(memory_format=torch.contiguous_format)
        )


def graph_of(
    evaluate: Callable[..., tuple[Tensor, ...]],
    points: Sequence[Sequence[Tensor]],
    compile: Compile,
) -> tuple[Traced, str | None]:
    """The graph of a function, and why it is not compiled where it was to be.

    Raises:
        TraceError: there is none.
    """
    with unvalidated():  # and the compiler keeps its state in globals
        if compile != "inductor":
            return traced(evaluate, points), None
        try:
            return compiled(evaluate, points), None
        except TraceError as error:
            return traced(evaluate, points), f"not compiled ({error})"


def evaluation(
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


def fresh_points(
    ensemble: Ensemble, objective: Objective, beta: Tensor
) -> list[tuple[Tensor, ...]]:
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
