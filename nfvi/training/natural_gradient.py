"""The natural gradient of a fit to a log-density, from the scores of the draws of each step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor, optim

from nfvi.training.ensemble import Ensemble
from nfvi.training.objectives import Objective, ReverseKL
from nfvi.training.pieces import LateNoise
from nfvi.training.without_compiler import WithoutCompiler
from nfvi.utils import check_positive

__all__ = ["NaturalGradient", "ScoredDraws", "check_scored"]

RATE = 0.5
DAMPING = 0.03
MOMENTUM = 0.9
# Nats, of KL(q_before ‖ q_after): where a step would change the guide more, it is shortened.
TRUST = 0.05
# A step is taken back where fresh draws say that it made things worse by so many standard errors.
SURELY = 1.0
# After a step that was taken back, and after any other. With 0.001 from the start and 0.95, one fit
# of six to pot1 and pot4 lost 1.2 nats; with these the worst ended at 0.008.
MORE_DAMPING, LESS_DAMPING = 4.0, 0.8
LEAST_DAMPING = 0.01
BLOCKS = 4
LARGEST = 2**27
"""Numbers of the scores of one restart: half a gigabyte in float32."""


class Draws(Protocol):
    """What a step of the natural gradient is made from."""

    def residuals(self, flat: Tensor) -> Tensor:
        """log q − log p (R, n) at the same base draws, for parameters (R, P)."""

    def scores(self, flat: Tensor, restart: int) -> Tensor:
        """The gradients (n, P) of log q by the parameters, each at its draw held fixed."""


class NaturalGradient(WithoutCompiler):
    """Steepest descent of KL(q ‖ p), with distances measured by the KL between guides.

    With scores o_i = ∇_θ log q_θ(x_i), less their mean and over √n, as the rows of O (n, P), and
    residuals r_i = log q(x_i) − log p(x_i), likewise, a step goes by

        δ = Oᵀ(OOᵀ + λ)⁻¹(r − O μv) + μv,    θ ← θ − ρδ,

    where v is the last δ, so that directions which the draws of a step do not show are remembered.
    The system has n unknowns, or P where that is less. ρ is ``lr`` times the schedule, less where a
    step would move the guide by more than 0.05 nats. A step after which fresh draws see a higher KL
    is taken back, and λ is multiplied by 4; after any other by 0.8.

    It needs many draws and few steps: some dozens, of 1 000 draws or more, take a fit from a KL of
    0.01 to 0.001 nats, where Adam takes thousands. Each costs n · P · min(n, P) operations, and
    memory for n · P numbers. Far from the target a flow of many parameters is faster with Adam:
    begin with some hundred of its steps, and go on from that fit by ``init=``.

    Args:
        params: one leaf (R, P), a restart a row.
        lr: ρ at the top of the schedule; 1 is the full step.
        damping: λ at the start, over the mean square of the rows of O.
        momentum: μ, at least 0 and below 1.

    Raises:
        ValueError: an argument is out of its range.

    Reference:
        Amari, Natural gradient works efficiently in learning, 1998. Chen and Heyl, Empowering deep
        neural quantum states through efficient optimization, 2024. Goldshlager, Abrahamsen and
        Lin, A Kaczmarz-inspired approach to accelerate the optimization of neural network
        wavefunctions, 2024.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = RATE,
        damping: float = DAMPING,
        momentum: float = MOMENTUM,
    ) -> None:
        check_positive("lr", lr)
        check_positive("damping", damping)
        if not isinstance(momentum, Real) or not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {momentum!r}")
        super().__init__(params, {"lr": lr, "damping": damping, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Draws) -> None:  # type: ignore[override]
        """One step, of all restarts.

        Args:
            closure: the draws of the step.
        """
        for group in self.param_groups:
            for flat in group["params"]:
                self._step(flat, group, closure)

    def _step(self, flat: Tensor, group: dict[str, Any], draws: Draws) -> None:
        state = self.state[flat]
        if not state:
            state["velocity"] = torch.zeros_like(flat)
            state["before"] = flat.detach().clone()
            state["damping"] = flat.new_full((len(flat), 1), group["damping"])
        residuals = self._judged(flat, state, draws)
        for row in range(len(flat)):
            if not bool(residuals[row].isfinite().all()):
                continue
            delta, moved = natural_direction(
                draws.scores(flat, row),
                residuals[row],
                float(state["damping"][row]),
                group["momentum"] * state["velocity"][row],
            )
            rate = group["lr"] * min(1.0, (2 * TRUST / max(moved, 1e-30)) ** 0.5)
            state["before"][row] = flat[row]
            state["velocity"][row] = delta
            flat[row] -= rate * delta

    def _judged(self, flat: Tensor, state: dict[str, Any], draws: Draws) -> Tensor:
        """The residuals, where the last step of restarts that it made worse has been undone."""
        residuals = draws.residuals(flat)
        if torch.equal(flat, state["before"]):
            return residuals
        before = draws.residuals(state["before"])
        change = residuals - before
        error = change.std(1) / change.shape[1] ** 0.5
        worse = ~(change.mean(1) <= SURELY * error).unsqueeze(1)
        flat.copy_(torch.where(worse, state["before"], flat))
        state["velocity"].copy_(torch.where(worse, 0.0, state["velocity"]))
        factor = torch.where(worse, MORE_DAMPING, LESS_DAMPING)
        state["damping"].mul_(factor).clamp_(min=LEAST_DAMPING)
        return torch.where(worse, before, residuals)


def natural_direction(
    scores: Tensor, residuals: Tensor, damping: float, kept: Tensor
) -> tuple[Tensor, float]:
    """The direction δ (P) of a step, and the square of its length in nats, δᵀFδ.

    Args:
        scores: (n, P); they are overwritten.
        residuals: (n).
        damping: over the mean square of the rows of O.
        kept: μv (P).
    """
    n, parameters = scores.shape
    rows = scores.sub_(scores.mean(0)).div_(n**0.5)
    ahead = rows @ kept
    rest = (residuals - residuals.mean()) / n**0.5 - ahead
    if parameters <= n:
        gram = rows.T @ rows
        delta = kept + _solved(gram.clone(), damping * gram.trace() / n, rest @ rows)
        moved = delta @ gram @ delta
    else:
        gram = _gram(rows)
        solved = _solved(gram.clone(), damping * gram.trace() / n, rest)
        delta = kept + solved @ rows
        moved = (gram @ solved + ahead).square().sum()
    return delta, float(moved)


def _solved(matrix: Tensor, lam: Tensor, right: Tensor) -> Tensor:
    """(A + λ)⁻¹b, or NaN where rounding leaves A + λ indefinite; A is overwritten."""
    matrix.diagonal().add_(lam.clamp_min(torch.finfo(lam.dtype).tiny))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    solved = torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
    return torch.where(failed == 0, solved, torch.nan)


def _gram(rows: Tensor) -> Tensor:
    """rows @ rowsᵀ, of which the blocks below the diagonal are not computed twice."""
    n = len(rows)
    gram = rows.new_empty(n, n)
    ends = [k * n // BLOCKS for k in range(BLOCKS + 1)]
    for low, high in pairwise(ends):
        block = rows[low:high] @ rows[low:].T
        gram[low:high, low:] = block
        gram[low:, low:high] = block.T
    return gram


class ScoredDraws:
    """Residuals and scores at the base draws of one step.

    Args:
        ensemble: the guides.
        objective: of the fit.
        batch: the base draws (R, n, d), or what makes them piece by piece.
        beta: inverse temperatures (R).
    """

    def __init__(
        self, ensemble: Ensemble, objective: ReverseKL, batch: Tensor | LateNoise, beta: Tensor
    ) -> None:
        # Either gradient has the same values, and these cost less.
        self.ensemble, self.objective = ensemble, replace(objective, gradient="total")
        self.noise = batch if isinstance(batch, Tensor) else torch.cat(list(batch), 1)
        self.beta = beta

    def residuals(self, flat: Tensor) -> Tensor:
        """See :class:`Draws`."""
        at = self.ensemble.at(flat)
        pieces = self.objective.pieces(self.ensemble, self.noise)
        return torch.cat([self.objective(at, piece, self.beta).loss for piece in pieces], 1)

    def scores(self, flat: Tensor, restart: int) -> Tensor:
        """See :class:`Draws`."""
        return self.ensemble.at(flat).scores(self.noise[restart], restart)


def check_scored(optimizer: optim.Optimizer, objective: Objective, parameters: Tensor) -> None:
    """Check that an optimiser is no natural gradient, or has what it needs.

    Args:
        optimizer: any.
        objective: of the fit.
        parameters: (R, P).

    Raises:
        ValueError: the fit is to data or to rows of it, or the scores would take too much memory.
    """
    if not isinstance(optimizer, NaturalGradient):
        return
    if type(objective) is not ReverseKL:
        raise ValueError(
            "optimizer=NaturalGradient is for fits to a log-density that each step evaluates as a"
            " whole, and this one sees rows of data: leave optimizer= out"
        )
    n_mc, size = objective.n_mc, parameters.shape[1]
    if n_mc * size > LARGEST:
        raise ValueError(
            f"optimizer=NaturalGradient keeps n_mc × {size:,} numbers for the {size:,} parameters"
            f" of this guide, {LARGEST:,} at most, and n_mc is {n_mc:,}: give n_mc="
            f"{LARGEST // size} or less, a formula of fewer parameters, or leave optimizer= out"
        )
