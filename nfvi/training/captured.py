"""Steps on CUDA as one graph of kernels, replayed in chunks that the host looks at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nfvi.tracing import equal
from nfvi.training.branch_free import BranchFreeStep
from nfvi.training.capture import Capture, CaptureError, attempted, cuda_graph
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

# What Ctrl-C and a look at the record wait for at most, and so short that nobody waits for them.
LONGEST = 0.075
# A compiled step of the smallest flows takes 0.09 ms on an H100, so that there are 800 in a chunk.
ROWS = 1_024
# Before its time is known.
FIRST = 8
# Of what is recorded, where the plain step does not repeat itself to the last bit either, or the
# graph is compiled. Not measured: an operation left out changes it by more.
NEAR = 1e-3

COMPILED = "compiled and captured"

Eager: TypeAlias = Callable[[Any], None]


def stepper(
    compile: Compile, steps: int, device: torch.device, otherwise: Mapping[str, bool]
) -> TracedStep:
    """What runs the steps of a fit on a device; arguments as for ``why_eager``."""
    reason = why_eager(compile, steps, device, otherwise)
    return (TracedStep if device.type == "cpu" else CapturedSteps)(reason, compile)


class CapturedSteps(TracedStep):
    """Runs steps as a CUDA graph: draws, then loss, gradient, guard, Adam and record in one replay.

    Draws are made by the plain code just before each replay, and put where the graph reads them,
    so that any source of draws or rows will do. The graph is held against the plain step on its
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
        self._chunks: _Chunks | None = None
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

    def _made(self, loop: LoopState) -> _Chunks:
        """The first way in which a step can be captured.

        Raises:
            CaptureError: there is none.
        """
        batch = attempted(partial(_spare_batch, loop))
        if len(loop.objective.pieces(loop.ensemble, batch)) > 1:
            raise CaptureError("a step goes in pieces, to fit into memory")
        said = []
        for how, evaluate in self._ways(loop, batch):
            try:
                chunks = attempted(partial(_Chunks, loop, evaluate, batch, self._capture))
            except CaptureError as error:
                said.append(f"not {how} ({error})")
            else:
                self._how = how
                loop.settings["evaluation"] = self.text
                return chunks
        raise CaptureError(", ".join(said))

    def _ways(self, loop: LoopState, batch: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Words for each way, the best first, and what makes its evaluation."""
        ensemble, objective = loop.ensemble, loop.objective
        plain = evaluation(ensemble, objective, batch)

        def traced(compile: Compile) -> Any:
            beta = loop.tempering(loop.step, ensemble.flat)
            now = (ensemble.flat.detach(), beta, *objective.tensors(batch))
            graph, why = graph_of(plain, [now, *fresh_points(ensemble, objective, beta)], compile)
            if why is not None:
                raise CaptureError(why)
            return graph

        if self.compile == "inductor":
            yield COMPILED, partial(traced, "inductor")
        yield "captured", lambda: plain
        yield "traced and captured", partial(traced, "trace")

    def _look(self, loop: LoopState, chunks: _Chunks, eager: Eager) -> int:
        """One step in both ways, of which the plain one counts."""
        batch = loop.objective.draw(loop.ensemble, loop.step, loop.generator)
        try:
            found = chunks.trial(loop, batch)
        except CaptureError as error:
            self._give_up(loop, str(error))
            eager(batch)
            return 1
        exact = self._how != COMPILED and chunks.repeats(loop, batch)
        eager(batch)
        after = loop.ensemble.flat.detach(), loop.history.last_row()
        fine = all(map(equal, found, after)) if exact else _near(found[1], after[1])
        if not fine:
            self._give_up(loop, f"at step {loop.step} the captured step gave other numbers")
        return 1


class _Chunks:
    """A captured step, and how many of them are done before the host looks.

    Args:
        loop: the fit.
        evaluate: makes the evaluation of the step.
        batch: what a step is evaluated on.
        capture: makes a function of a step that repeats it.
    """

    def __init__(
        self, loop: LoopState, evaluate: Callable[[], Any], batch: Any, capture: Capture
    ) -> None:
        self.step = BranchFreeStep(loop, evaluate(), batch, ROWS)
        self.step.memory.load(loop)
        before = self.step.memory.copies()
        self._replay = capture(self.step, loop.ensemble.flat.device)
        self.step.memory.put_back(before)
        self._most = FIRST
        self._plain = evaluation(loop.ensemble, loop.objective, batch)

    def run(self, loop: LoopState, most: int) -> int:
        """Do a chunk of at most so many steps; how many it was.

        Raises:
            CaptureError: something went wrong; the fit is where it was before.
        """
        memory = self.step.memory
        memory.load(loop)
        before, generator = memory.copies(), loop.generator.get_state()
        steps, first, started = min(most, self._most), loop.step, time.perf_counter()
        try:
            done = attempted(lambda: self._replayed(loop, first, steps))
        except CaptureError:
            memory.put_back(before)
            loop.generator.set_state(generator)
            raise
        each = (time.perf_counter() - started) / steps
        self._most = max(1, min(int(LONGEST / each), ROWS, 4 * self._most))
        memory.store(loop)
        restarts, draws = self.step.terms
        lr = [loop.peaks[0] * loop.schedule(step) for step in range(first, first + done)]
        loop.history.extend(lr, draws, self.step.tables.record(done))
        loop.gradient_evaluations += done * restarts * draws
        loop.batched_evaluations += done
        return done

    def trial(self, loop: LoopState, batch: Any) -> tuple[Tensor, Tensor]:
        """Parameters and record after a step on a batch, which is undone.

        Raises:
            CaptureError: something went wrong.
        """
        memory = self.step.memory
        memory.load(loop)
        before = memory.copies()

        def one() -> tuple[Tensor, Tensor]:
            self._fill(loop, loop.step, 1)
            self.step.take(loop.objective.tensors(batch))
            self._replay()
            self.step.tables.done(1)
            return memory.flat.detach().clone(), self.step.tables.record(1)[0]

        try:
            return attempted(one)
        finally:
            memory.put_back(before)
            memory.store(loop)

    def repeats(self, loop: LoopState, batch: Any) -> bool:
        """Whether the plain step gives the same numbers twice, as sums in any order may not."""
        beta = loop.tempering(loop.step, loop.ensemble.flat)
        inputs = (loop.ensemble.flat.detach(), beta, *loop.objective.tensors(batch))
        return all(map(equal, self._plain(*inputs), self._plain(*inputs)))

    def _replayed(self, loop: LoopState, first: int, steps: int) -> int:
        self._fill(loop, first, steps)
        for step in range(first, first + steps):
            batch = loop.objective.draw(loop.ensemble, step, loop.generator)
            self.step.take(loop.objective.tensors(batch))
            self._replay()
        return self.step.tables.done(steps)

    def _fill(self, loop: LoopState, first: int, steps: int) -> None:
        lr = [single(loop.peaks[0] * loop.schedule(step)) for step in range(first, first + steps)]
        beta = loop.tempering.table(first, steps, loop.ensemble.flat.dtype)
        self.step.tables.fill(lr, beta)


def _spare_batch(loop: LoopState) -> Any:
    """What a step may be evaluated on, with which no step is done."""
    generator = torch.Generator(loop.ensemble.flat.device).manual_seed(0)
    return loop.objective.spare().draw(loop.ensemble, loop.step, generator)


def _why_not(loop: LoopState, groups: bool) -> str | None:
    """Why the steps of a run are not captured, by what is known before the first of them."""
    reasons = {
        "several processes share a step": loop.ranks.size > 1,
        "restarts have learning rates of their own": loop.rates is not None,
        "an optimizer other than the default Adam": not is_default(loop.optimizer),
        "restarts were pruned": len(loop.rows) < loop.restarts,
        "a callback wants the gradients of groups of draws": groups,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _near(row: Tensor, other: Tensor) -> bool:
    """Whether two records of a step (fields, R) differ by rounding alone."""
    return torch.allclose(row, other.to(row), rtol=NEAR, atol=NEAR, equal_nan=True)
