"""One chain: its random numbers, and Pyro's kernel stepped draw by draw."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from nfvi.mcmc.potential import Potential
from nfvi.utils import process_wide

__all__ = ["LEAST_DRAWS", "Chain", "Kernel", "OnDraw", "run_chain"]

logger = logging.getLogger(__name__)

Kernel = Any  # pyro.infer.mcmc.MCMCKernel; Pyro ships no types
OnDraw = Callable[[str], None]

# Of a chain cut short: split in halves, as for R-hat and ESS, it needs two draws in each.
LEAST_DRAWS = 4


@dataclass(frozen=True, eq=False)
class Chain:
    """What one chain left.

    Attributes:
        draws: (draws, d), on unconstrained space.
        diverging: (draws,) bool, whether the trajectory of the draw diverged.
        gradients: (draws,) int, gradient evaluations behind each draw.
        all_gradients: gradient evaluations in all, warm-up and step-size search included.
        accept: mean acceptance probability of the draws.
        step_size: the leapfrog step after warm-up, on the scale of the adapted mass.
        warmup_time: seconds.
        sampling_time: seconds.
        complete: ``False`` if Ctrl-C cut the chain short.
    """

    draws: Tensor
    diverging: Tensor
    gradients: Tensor
    all_gradients: int
    accept: float
    step_size: float
    warmup_time: float
    sampling_time: float
    complete: bool


def run_chain(
    make: Callable[[Potential], Kernel],
    potential: Potential,
    start: Tensor,
    *,
    draws: int,
    warmup: int,
    seed: int,
    on_draw: OnDraw,
) -> Chain:
    """Run one chain; the global random state is left as it was, and chains of threads take turns.

    Args:
        make: gives a Pyro kernel on a potential.
        potential: of this chain alone.
        start: (d,), where the chain begins.
        draws: how many draws are kept.
        warmup: how many go before, in which step size and mass are adapted.
        seed: of this chain.
        on_draw: called after every step with ``"warm-up"`` or ``"draws"``.

    Raises:
        KeyboardInterrupt: Ctrl-C before there were four draws; later it ends the chain early.
    """
    kernel = make(potential)
    record = _Record(potential, start.new_empty(draws, start.numel()))
    # Pyro turns argument checks off in warm-up, where a nan is expected; a nan is no less expected
    # at a later divergence, and there its checks would end the run.
    with process_wide(), _seeded(seed, start.device), pyro.validation_enabled(False):
        kernel.initial_params = {"z": start.clone()}
        kernel.setup(warmup)
        params = kernel.initial_params
        try:
            for _ in range(warmup):
                params = kernel.sample(params)
                on_draw("warm-up")
            record.begin()
            for _ in range(draws):
                params = kernel.sample(params)
                record.add(params["z"])
                on_draw("draws")
        except KeyboardInterrupt:
            if record.n < LEAST_DRAWS:
                raise
    return record.chain(kernel)


class _Record:
    """Draws as they come, and what they cost."""

    def __init__(self, potential: Potential, draws: Tensor) -> None:
        self.potential = potential
        self.draws = draws
        self.n = 0
        self.counts: list[int] = []
        self.times = [time.perf_counter()]

    def begin(self) -> None:
        """Warm-up is over."""
        self.counts.append(self.potential.gradients)
        self.times.append(time.perf_counter())

    def add(self, z: Tensor) -> None:
        self.draws[self.n] = z
        self.counts.append(self.potential.gradients)
        self.n += 1

    def chain(self, kernel: Kernel) -> Chain:
        start, begun, end = *self.times, time.perf_counter()
        logger.debug(
            "chain: %d draws, %d gradients, %.1f s", self.n, self.potential.gradients, end - start
        )
        diverging = torch.zeros(self.n, dtype=torch.bool, device="cpu")
        diverging[[i for i in kernel.diagnostics()["divergences"] if i < self.n]] = True
        return Chain(
            draws=self.draws[: self.n],
            diverging=diverging,
            gradients=torch.diff(torch.tensor(self.counts, device="cpu"))[: self.n],
            all_gradients=self.potential.gradients,
            accept=float(kernel.logging()["acc. prob"]),
            step_size=float(kernel.step_size),
            warmup_time=begun - start,
            sampling_time=end - begun,
            complete=self.n == len(self.draws),
        )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that Pyro draws from, and put their states back on leaving."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        # torch.manual_seed would reach the generators of devices that are not put back
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
