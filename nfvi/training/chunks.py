"""Chunks of a captured step: so many are done before the host looks at what they gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from nfvi.tracing import equal
from nfvi.training.branch_free import BranchFreeStep
from nfvi.training.capture import Capture, CaptureError, attempted
from nfvi.training.compiled_step import compiled_step
from nfvi.training.device_history import single
from nfvi.training.loop_state import LoopState
from nfvi.training.step import evaluation

__all__ = ["Chunks", "Points"]

Points: TypeAlias = Sequence[Sequence[Tensor]]

# What Ctrl-C and a look at the record wait for at most, and so short that nobody waits for them.
LONGEST = 0.075
# A compiled step of the smallest flows takes 0.09 ms on an H100, so that there are 800 in a chunk.
ROWS = 1_024
# Before its time is known.
FIRST = 8


class Chunks:
    """A captured step, and how many of them are done before the host looks.

    Args:
        loop: the fit.
        evaluate: makes the evaluation of the step.
        batch: what a step is evaluated on, in tensors to put other batches into.
        points: makes those to compile the whole step at; ``None`` to leave it as it is.
        capture: makes a function of a step that repeats it.
        draws: whether what a step is evaluated on is drawn within it.
    """

    def __init__(
        self,
        loop: LoopState,
        evaluate: Callable[[], Any],
        batch: Any,
        points: Callable[[], Points] | None,
        capture: Capture,
        draws: bool,
    ) -> None:
        self.step = BranchFreeStep(loop, evaluate(), batch, ROWS)
        self.step.memory.load(loop)
        before, step = self.step.memory.copies(), cast(Callable[[], None], self.step)
        device = loop.ensemble.flat.device
        # One of its own, as a capture that fails leaves it unable to draw.
        self._source = torch.Generator(device).manual_seed(0) if draws else None
        try:
            if points is not None:
                step = compiled_step(self.step, points(), single(loop.peaks[0]))

            def whole() -> None:
                if self._source is not None:
                    self._draw(loop, loop.step, self._source)
                step()

            self._replay = capture(whole, device, self._source)
        finally:
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

    def trial(self, loop: LoopState, batch: Any, source: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters and record after a step on a batch, which is undone.

        Args:
            loop: the fit.
            batch: what was drawn.
            source: the state of the generator before.

        Raises:
            CaptureError: something went wrong.
        """
        memory = self.step.memory
        memory.load(loop)
        before = memory.copies()

        def one() -> tuple[Tensor, Tensor]:
            self._fill(loop, loop.step, 1)
            if self._source is None:
                self.step.take(loop.objective.tensors(batch))
            else:
                self._source.set_state(source)
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
        if self._source is not None:
            self._source.set_state(loop.generator.get_state())
        for step in range(first, first + steps):
            if self._source is None:
                self._draw(loop, step, loop.generator)
            self._replay()
        if self._source is not None:
            loop.generator.set_state(self._source.get_state())
        return self.step.tables.done(steps)

    def _draw(self, loop: LoopState, step: int, generator: torch.Generator) -> None:
        batch = loop.objective.draw(loop.ensemble, step, generator)
        self.step.take(loop.objective.tensors(batch))

    def _fill(self, loop: LoopState, first: int, steps: int) -> None:
        lr = [single(loop.peaks[0] * loop.schedule(step)) for step in range(first, first + steps)]
        beta = loop.tempering.table(first, steps, loop.ensemble.flat.dtype)
        self.step.tables.fill(lr, beta)
