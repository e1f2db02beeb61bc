"""More draws a step once the noise of the gradient outweighs what it says."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.training.loop_state import Control, LoopState
from nfvi.training.objectives import ReverseKL

__all__ = ["FIRST", "Growth"]

# Up to some hundreds of draws a step costs little more: fewer at first save
# where they are expensive.
FIRST = 64
# Four doublings: the noise is down to a quarter; more is better spent on steps.
MOST = 1_024
# Of all restarts together: 16 MB in float32 for the draws alone, and several times that for a
# layer.
NUMBERS = 2**22
# β₁ of Adam, since it is that mean whose noise counts; SLOW is its β₂ here.
MEMORY = 0.9
SLOW = 0.99
# The second half is averaged, when the slow mean has its full memory to go by; longer reacts
# later.
EVERY = 200
SETTLED = 100


class Growth(Control):
    """Doubles the draws a step when the gradient, averaged as Adam does, is mostly noise.

    With g the gradient of a restart, m its running mean with decay β₁ = 0.9 and v that of ‖g‖²
    with decay 0.99, both freed of their start at 0, a signal s and noise of variance σ² (summed
    over the parameters) give ::

        E‖m‖² = s² + φ σ²,   E v = s² + σ²,   φ = (1 − β₁) / (1 + β₁)

    so that ρ = ‖m‖² / v falls from 1, all signal, to φ = 0.053, all noise. In m the noise
    outweighs the signal, φ σ² > s², where ρ < 2 φ / (1 + φ) = 1 − β₁ = 0.1. ρ is averaged over
    the last 100 of 200 steps; if its median over the restarts alive is below 0.1 then, n_mc is
    doubled, up to 1 024 and to 2²² numbers a step in all restarts. Both means are begun anew.

    They are those of the gradient that the optimiser gets, so that every optimiser will do.

    Args:
        like: the parameters (R, P).
        n_mc: draws at the start.
        dim: d.
    """

    def __init__(self, like: Tensor, n_mc: int, dim: int) -> None:
        self.most = max(n_mc, min(MOST, NUMBERS // (like.shape[0] * dim)))
        self.mean = torch.zeros_like(like.detach())
        self.square = like.detach().new_zeros(like.shape[0])
        self.share = torch.zeros_like(self.square)
        self.seen = torch.zeros((), dtype=torch.int64)

    def __call__(self, loop: LoopState) -> None:
        """Update the means with the gradient of this step, and double the draws if it is time."""
        objective = loop.objective
        if not isinstance(objective, ReverseKL) or 2 * objective.n_mc > self.most:
            return
        self._remember(loop.gradient)
        if int(self.seen) < EVERY:
            return
        if bool(loop.guard.alive.any()):
            noisy = float(self.share[loop.guard.alive].median()) < 1 - MEMORY
            loop.objective = objective.with_draws(objective.n_mc * 2) if noisy else objective
        for sums in (self.mean, self.square, self.share, self.seen):
            sums.zero_()

    def _remember(self, gradient: Tensor) -> None:
        self.seen += 1
        self.mean = torch.lerp(gradient, self.mean, MEMORY)
        self.square = torch.lerp(gradient.square().sum(1), self.square, SLOW)
        seen = int(self.seen)
        if seen > EVERY - SETTLED:
            mean = self.mean.square().sum(1) / (1 - MEMORY**seen) ** 2
            square = self.square / (1 - SLOW**seen)
            # A gradient of 0 has nothing to gain from more draws.
            self.share += torch.where(square > 0, mean / square, 1.0) / SETTLED

    def keep(self, rows: Tensor) -> None:
        self.mean, self.square, self.share = (
            value[rows] for value in (self.mean, self.square, self.share)
        )

    def state_dict(self, loop: LoopState) -> dict[str, Tensor]:
        names = ("mean", "square", "share", "seen")
        objective = loop.objective
        n_mc = objective.n_mc if isinstance(objective, ReverseKL) else 0
        return {name: getattr(self, name) for name in names} | {"n_mc": torch.tensor(n_mc)}

    def load_state_dict(self, state: dict[str, Tensor], loop: LoopState) -> None:
        self.mean, self.square, self.share = state["mean"], state["square"], state["share"]
        self.seen = state["seen"].cpu()
        if isinstance(loop.objective, ReverseKL):
            loop.objective = loop.objective.with_draws(int(state["n_mc"]))
