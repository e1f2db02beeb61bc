"""Steps on CUDA as one graph of kernels, replayed in chunks that the host looks at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch

from nfvi.tracing import TraceError, equal
from nfvi.training.capture import Capture, CaptureError, attempted, cuda_graph
from nfvi.training.chunks import Chunks, Points
from nfvi.training.compiled_step import nearly
from nfvi.training.device_history import single
from nfvi.training.failure import failure
from nfvi.training.loop_state import LoopState
from nfvi.training.optimizers import is_default
from nfvi.training.step import (
    EAGER,
    LOOK_AGAIN,
    Compile,
    TracedStep,
    evaluation,
    fresh_points,
    graph_of,
    why_eager,
)

__all__ = ["CapturedSteps", "stepper"]

COMPILED = "compiled and captured"

Eager: TypeAlias = Callable[[Any], None]
_Way: TypeAlias = tuple[str, Callable[[], Any], Callable[[], Points] | None]


def stepper(
    compile: Compile, steps: int, device: torch.device, otherwise: Mapping[str, bool]
) -> TracedStep:
    """What runs the steps of a fit on a device; arguments as for ``why_eager``."""
    reason = why_eager(compile, steps, device, otherwise)
    return (TracedStep if device.type == "cpu" else CapturedSteps)(reason, compile)


class CapturedSteps(TracedStep):
    """Runs steps as a CUDA graph: draws, loss, gradient, guard, Adam and record in one replay.

    Draws are part of the graph where the same operations make them at each step. Else they are made
    by the plain code just before each replay, and put where the graph reads them, so that any
    source of draws or rows will do. The graph is held against the plain step on its
    first step and on every 500th. Where it cannot be captured as it is, it is captured from the
    traced graph, in which the constants of a model lie on the device. Where that fails too, or a
    replay does, all further steps are left to autograd, from the state before the chunk.

    The learning rate is rounded to float32, whether or not steps are captured, so that a fit is the
    same one in either case.

    Args:
        reason: why all steps are left to autograd; ``None`` to capture.
        compile: as for ``NFVI.fit``.
        capture: makes a function of a step that repeats it.
    """

    ahead = True

    def __init__(
        self,
        reason: str | None = None,
        compile: Compile = "trace",
        capture: Capture = cuda_graph,
    ) -> None:
        super().__init__(reason, compile)
        self._capture = capture
        self._chunks: Chunks | None = None
        self._how = "captured"
        self._in_this_run: str | None = None
        self._next_look = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without what lies on the device."""
        return {**super().__getstate__(), "_chunks": None}

    @property
    def text(self) -> str:
        reason = self.reason or self._in_this_run
        return self._how if reason is None else EAGER + reason

    def rate(self, value: float) -> float:
        return single(value)

    def __call__(self, *arguments: Any) -> None:
        """No step is evaluated by itself."""
        return None

    @contextmanager
    def running(self, loop: LoopState, groups: bool) -> Iterator[None]:
        self._in_this_run = _why_not(loop, groups)
        loop.settings["evaluation"] = self.text
        try:
            yield
        finally:
            self._chunks = None  # a graph holds memory of the device

    @torch.enable_grad()
    def advance(self, loop: LoopState, most: int, eager: Eager) -> int:
        if self.reason is not None or self._in_this_run is not None:
            return 0
        try:
            if self._chunks is None:
                self._chunks = self._made(loop)
                self._next_look = loop.step
            if loop.step >= self._next_look:
                self._next_look = loop.step + LOOK_AGAIN
                return self._look(loop, self._chunks, eager)
            done = self._chunks.run(loop, min(most, self._next_look - loop.step))
        except CaptureError as error:
            self._give_up(loop, str(error))
            return 0
        if not bool(loop.guard.alive.any()):
            raise failure(loop, loop.history.last("loss", 1)[0], self._chunks.step.memory.raw)
        return done

    def _give_up(self, loop: LoopState, reason: str) -> None:
        self.reason, self._chunks = reason, None
        loop.settings["evaluation"] = self.text

    def _made(self, loop: LoopState) -> Chunks:
        """The first way in which a step can be captured.

        Raises:
            CaptureError: there is none.
        """
        batch = attempted(partial(_buffers, loop))
        said = []
        for how, evaluate, points in self._ways(loop, batch):
            try:
                chunks = self._captured(loop, evaluate, batch, points)
            except CaptureError as error:
                said.append(f"not {'compiled' if how == COMPILED else how} ({error})")
            else:
                # Of what was to be compiled, why it is not.
                self._how = how if self.compile != "inductor" or not said else f"{how}: {said[0]}"
                loop.settings["evaluation"] = self.text
                return chunks
        raise CaptureError(", ".join(said))

    def _captured(
        self,
        loop: LoopState,
        evaluate: Callable[[], Any],
        batch: Any,
        points: Callable[[], Points] | None,
    ) -> Chunks:
        """With the draws in the graph where that can be."""
        make = partial(Chunks, loop, evaluate, batch, points, self._capture)
        if loop.objective.draws_repeat:
            try:
                return attempted(partial(make, draws=True))
            except CaptureError as error:
                if isinstance(error.__cause__, TraceError):  # it would be the same without
                    raise
        return attempted(partial(make, draws=False))

    def _ways(self, loop: LoopState, batch: Any) -> Iterator[_Way]:
        """Words for each way, the best first, what makes its evaluation, and where to compile."""
        ensemble, objective = loop.ensemble, loop.objective
        plain = evaluation(ensemble, objective, batch)

        def points() -> Points:
            # Apart from the buffers, into which other batches go.
            tensors = [x.clone() for x in objective.tensors(batch)]
            beta = loop.tempering(loop.step, ensemble.flat)
            now = (ensemble.flat.detach().clone(), beta, *tensors)
            return [now, *fresh_points(ensemble, objective, beta)]

        def traced() -> Any:
            return graph_of(plain, points(), "trace")[0]

        if self.compile == "inductor":
            yield COMPILED, lambda: plain, points
        yield "captured", lambda: plain, None
        yield "traced and captured", traced, None

    def _look(self, loop: LoopState, chunks: Chunks, eager: Eager) -> int:
        """One step in both ways, of which the plain one counts."""
        before = loop.generator.get_state()
        batch = loop.objective.draw(loop.ensemble, loop.step, loop.generator)
        try:
            found = chunks.trial(loop, batch, before)
        except CaptureError as error:
            self._give_up(loop, str(error))
            eager(batch)
            return 1
        exact = self._how != COMPILED and chunks.repeats(loop, batch)
        eager(batch)
        after = loop.ensemble.flat.detach(), loop.history.last_row()
        fine = all(map(equal, found, after)) if exact else nearly(found[1], after[1])
        if not fine:
            self._give_up(loop, f"at step {loop.step} the captured step gave other numbers")
        return 1


def _buffers(loop: LoopState) -> Any:
    """A batch in tensors of its own on the device, to put those of the steps into."""
    device, objective = loop.ensemble.flat.device, loop.objective
    generator = torch.Generator(device).manual_seed(0)
    batch = objective.spare().draw(loop.ensemble, loop.step, generator)
    if len(objective.pieces(loop.ensemble, batch)) > 1:
        raise CaptureError("a step goes in pieces, to fit into memory")
    tensors = [x.to(device, copy=True) for x in objective.tensors(batch)]
    return objective.batch_of(tensors, batch)


def _why_not(loop: LoopState, groups: bool) -> str | None:
    """Why the steps of a run are not captured, by what is known before the first of them."""
    reasons = {
        "several processes share a step": loop.ranks.size > 1,
        "restarts have learning rates of their own": loop.rates is not None,
        "an optimizer other than the default Adam": not is_default(loop.optimizer),
        "prune=True changes the number of restarts": bool(loop.settings.get("prune")),
        "restarts were pruned": len(loop.rows) < loop.restarts,
        "a callback wants the gradients of groups of draws": groups,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
