"""Tempering that goes as fast as the draws can follow."""

from __future__ import annotations

import torch
from torch import Tensor

from nfvi.training.schedule import Tempering

__all__ = ["AdaptiveTempering"]

# Measured on `funnel` and pot1 (docs/training.md): 0.05 nats from log Z and 0.03. Half of the
# draws is the usual share in sequential Monte Carlo; less lets β jump ahead of the guide.
EFFECTIVE = 0.5
# Of the length: what one such rise takes, and the least that all of them take together. Smaller,
# and the guide is behind the density it is fitted to; both at 1, and it is a line as with
# `anneal=`.
PACE = 2 / 3
LEAST = 1 / 3
# The pace is noisy and changes slowly; at every step it would cost a search in each.
EVERY = 10
MOST = 2.0  # β rises no faster than this allows, by LEAST
# To 2 · 2⁻³⁰, where β itself is told to 10⁻⁹.
BISECTIONS = 30


class AdaptiveTempering(Tempering):
    """β of each restart on the way from the base q₀ to the target, p^β q₀^(1−β), by its draws.

    Every 10 steps, the draws of the step say how far β can rise until their weights
    (p / q₀)^(β′ − β) are worth half of them, as the effective sample size (Σ w)² / Σ w² has it. β
    then rises at a rate that takes two thirds of the restart's ``length`` for that much: slowly
    where the densities on the way differ, and fast where they do not. It takes a third of the
    length at least, and the whole at most.

    Args:
        lengths: steps that the rise takes at most for each restart; 0 for β = 1 from the start.

    Reference:
        Del Moral, Doucet and Jasra, An adaptive sequential Monte Carlo method for approximate
        Bayesian computation, 2012, for the choice by the effective sample size.
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        super().__init__(lengths)
        starts = [self.start if length else 1.0 for length in lengths]
        self.beta = torch.tensor(starts, dtype=torch.float64)
        self.rate = torch.zeros_like(self.beta)

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """β (R) for a step, counted from 0, in the dtype and on the device of ``like``."""
        return self.beta.to(like)

    def observe(self, step: int, loss: Tensor, elbo: Tensor) -> None:
        """Raise β after a step, by its terms (R, n): log q − β log p − (1 − β) log q₀, and ELBO."""
        left = 1 - self.beta
        if not bool((left > 0).any()):
            return
        length = torch.tensor(self.lengths).clamp_min(1).double()
        if step % EVERY == 0:
            # Their sum is (1 − β) (log p − log q₀).
            log_ratio = (loss + elbo).double().cpu() / left.clamp_min(1e-12).unsqueeze(1)
            self.rate = _reach(log_ratio) / (PACE * length)
        most = (1 - self.start) / (LEAST * length)
        least = left / (length - step).clamp_min(1)
        beta = self.beta + torch.maximum(torch.minimum(self.rate, most), least)
        self.beta = torch.where(beta > 1 - 1e-9, 1.0, beta)

    def keep(self, rows: Tensor) -> AdaptiveTempering:
        """That of some of the restarts."""
        chosen = AdaptiveTempering(tuple(self.lengths[row] for row in rows.tolist()))
        chosen.beta, chosen.rate = self.beta[rows.cpu()], self.rate[rows.cpu()]
        return chosen

    def state_dict(self) -> dict[str, Tensor]:
        """Where β is, and how fast it rises."""
        return {"beta": self.beta, "rate": self.rate}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the state from a checkpoint."""
        self.beta, self.rate = state["beta"].cpu(), state["rate"].cpu()


def _reach(log_ratio: Tensor) -> Tensor:
    """By how much β can rise (R), at most 2, until weights of log ratios (R, n) are half as good.

    Terms that are not finite are draws of weight 0.
    """
    values = torch.where(log_ratio.isfinite(), log_ratio, -torch.inf)
    values = values - values.amax(1, keepdim=True)
    low, high = torch.zeros_like(values[:, 0]), torch.full_like(values[:, 0], MOST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        weight = (middle.unsqueeze(1).clamp_min(1e-300) * values).exp()
        share = weight.sum(1).square() / weight.square().sum(1) / weight.shape[1]
        fine = share >= EFFECTIVE
        low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
    return low
