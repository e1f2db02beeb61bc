"""Fits and steps of nfvi, traced and as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from benchmarks.speed.clocks import WARMUP, Moment
from benchmarks.speed.fitter import LADDER
from benchmarks.speed.problems import DRAWS, Problem
from models import pot1
from nfvi import NFVI, Fit, Stop, TrainState
from nfvi.fit import elbo_of, evaluate

__all__ = ["NfviFitter", "step_times"]

# A schedule that long, of which no more is run than is timed.
ENDLESS = 10**6


@dataclass
class NfviFitter:
    """A formula with everything at its default but the steps.

    Attributes:
        problem: the target.
        formula: as for ``NFVI``; ``"auto"`` chooses its steps by itself.
        compile: as for ``NFVI.fit``.
        base: as for ``NFVI``.
        device: as for ``NFVI``.
    """

    problem: Problem
    formula: str
    compile: Any = "trace"
    base: str = "normal"
    device: str = "cpu"
    fit: Fit | None = field(default=None, init=False)

    @property
    def lengths(self) -> Sequence[int | None]:
        """See ``Fitter``."""
        return (None,) if self.formula == "auto" else LADDER

    def run(self, steps: int | None, seed: int) -> None:
        """See ``Fitter``."""
        nfvi = NFVI(self.formula, base=self.base, seed=seed, device=self.device)
        given = {} if steps is None else {"steps": steps}
        target = self.problem.target()
        self.fit = nfvi.fit(target, compile=self.compile, progress=False, **given)
        _wait(self.device)

    def gap(self) -> float:
        """See ``Fitter``."""
        if self.fit is None or self.fit.target is None:
            raise ValueError("run() comes before gap()")
        generator = torch.Generator(self.fit.guide.device).manual_seed(12_345)
        found = evaluate(self.fit.guide, self.fit.target, DRAWS, generator, keep=0)
        return self.problem.log_z - elbo_of(found.log_p, found.log_q)[0]


def step_times(n: int, compile: Any, steps: int, device: str = "cpu") -> list[Moment]:
    """What each of so many steps of ``planar*8`` on pot1 took, after five that do not count.

    Args:
        n: draws a step, of one restart.
        compile: as for ``NFVI.fit``.
        steps: that count.
        device: as for ``NFVI``.
    """
    ends: list[Moment] = []

    def watch(state: TrainState) -> Stop | None:
        _wait(device)
        ends.append(Moment.now())
        return Stop("enough") if len(ends) == steps + WARMUP else None

    NFVI("planar*8", seed=0, device=device).fit(
        pot1,
        steps=ENDLESS,
        n_mc=n,
        restarts=1,
        anneal=False,
        draws="iid",
        compile=compile,
        callbacks=[watch],
        progress=False,
    )
    return [end.since(start) for start, end in pairwise(ends[WARMUP - 1 :])]


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
