"""The reverse KL divergence from a few rows of data a step, freed of most of their noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nfvi.targets import (
    MinibatchTarget,
    Target,
    evaluate_anywhere,
    log_prob_and_score,
    takes_rows,
)
from nfvi.training.ensemble import Ensemble
from nfvi.training.loop_state import Control, LoopState
from nfvi.training.objectives import Evaluation, ReverseKL
from nfvi.utils import kept_at_once, next_multiple

__all__ = ["Anchors", "MinibatchKL", "MinibatchOf", "reverse_kl"]

# Looks at all rows take a twentieth of the time at most.
SHARE = 20
EVERY = 250
# The mean of so many draws is off by an eighth of an sd, and the anchor need only be near.
DRAWS = 64


class Anchors(Control):
    """A point near each guide, at which the log-density of all rows and its gradient are known.

    With L the log-density, L_b its estimate from the rows of a step, and a the point, ::

        L(z) ≈ L_b(z) + [L(a) − L_b(a)] + [∇L(a) − ∇L_b(a)]ᵀ(z − a)

    is unbiased whatever a is, as the mean of L_b is L. Near a all that is left of the noise is of
    second order: for guides of a sd of 1/√N its variance is lower by a factor of N. Points
    are the means of the guides, and follow them.

    Args:
        target: of which a step sees a few rows.
        every: steps after which the points move.

    Reference:
        Johnson and Zhang, Accelerating stochastic gradient descent using predictive variance
        reduction, 2013. Baker, Fearnhead, Fox and Nemeth, Control variates for stochastic gradient
        MCMC, 2019.
    """

    def __init__(self, target: MinibatchTarget, every: int) -> None:
        self.target, self.every = target, every
        self._known: tuple[Tensor, Tensor, Tensor] | None = None

    def at(self, ensemble: Ensemble) -> tuple[Tensor, Tensor, Tensor]:
        """The points (R, d), the log-density of all rows there (R), and its gradient (R, d)."""
        if self._known is None:
            self._known = self._of(ensemble)
        return self._known

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, loop: LoopState) -> None:
        """Move the points to where the guides are, if it is time."""
        if loop.step % self.every == 0 and loop.step < loop.last:
            self._known = self._of(loop.ensemble)

    @torch.no_grad()
    def _of(self, ensemble: Ensemble) -> tuple[Tensor, Tensor, Tensor]:
        # Of a stream of its own: where guides are is no matter of chance.
        generator = torch.Generator(ensemble.flat.device).manual_seed(0)
        point = ensemble.push(ensemble.draw(DRAWS, generator))[0].mean(1)
        return point, *log_prob_and_score(self.target, point)

    def keep(self, rows: Tensor) -> None:
        if self._known is not None:
            point, height, slope = self._known
            self._known = point[rows], height[rows], slope[rows]

    def state_dict(self, loop: LoopState) -> dict[str, Tensor]:
        names = ("point", "height", "slope")
        return {} if self._known is None else dict(zip(names, self._known, strict=True))

    def load_state_dict(self, state: dict[str, Tensor], loop: LoopState) -> None:
        self._known = (state["point"], state["height"], state["slope"]) if state else None


@dataclass(frozen=True)
class MinibatchOf:
    """What a step of a fit to rows is evaluated on.

    Attributes:
        noise: base draws (R, n, d), or what makes them piece by piece.
        rows: what stands for the rows of the step, the same for all restarts.
        point: of each restart (R, d), see :class:`Anchors`.
        offset: L(a) − L_b(a) there (R).
        tilt: ∇L(a) − ∇L_b(a) there (R, d).
    """

    noise: Any
    rows: tuple[Tensor, ...]
    point: Tensor
    offset: Tensor
    tilt: Tensor

    def __len__(self) -> int:
        return int(self.noise.shape[1])


class _Pieces(Sequence[MinibatchOf]):
    """The draws of a step in pieces, each with all of its rows."""

    def __init__(self, batch: MinibatchOf, noise: Sequence[Tensor]) -> None:
        self.batch, self.noise = batch, noise

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, piece: Any) -> Any:
        return replace(self.batch, noise=self.noise[piece])

    def __iter__(self) -> Iterator[MinibatchOf]:
        return (self[piece] for piece in range(len(self)))


@dataclass(frozen=True)
class MinibatchKL(ReverseKL):
    """The reverse KL divergence, with log p estimated from fresh rows in each step.

    Args:
        target: p; a :class:`~nfvi.targets.MinibatchTarget`.
        n_mc: as for :class:`ReverseKL`, as are those after it.
        anchors: what takes the noise of the rows off.
    """

    draws_repeat = False

    anchors: Anchors = field(kw_only=True)

    @property
    def rows_a_step(self) -> int:
        return self._minibatches.batch_size

    @property
    def _minibatches(self) -> MinibatchTarget:
        return self.anchors.target

    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> MinibatchOf:  # type: ignore[override]
        """Base draws as for :class:`ReverseKL`, and rows."""
        noise = super().draw(ensemble, step, generator)
        rows = self._minibatches.draw_rows(generator)
        point, height, slope = self.anchors.at(ensemble)
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            low = self._log_p(leaf, rows)
            (low_slope,) = torch.autograd.grad(low.sum(), leaf)
        offset, tilt = height - low.detach(), slope - low_slope
        usable = offset.isfinite() & tilt.isfinite().all(1)
        offset = torch.where(usable, offset, 0.0)
        tilt = torch.where(usable.unsqueeze(1), tilt, 0.0)
        return MinibatchOf(noise, rows, point, offset, tilt)

    def tensors(self, batch: MinibatchOf) -> tuple[Tensor, ...]:
        """Those of draws, anchors and rows."""
        return (batch.noise, batch.point, batch.offset, batch.tilt, *batch.rows)

    def batch_of(self, tensors: Sequence[Tensor], like: MinibatchOf) -> MinibatchOf:
        """What :meth:`draw` returns, of such tensors."""
        noise, point, offset, tilt, *rows = tensors
        return MinibatchOf(noise, tuple(rows), point, offset, tilt)

    def length(self, batch: MinibatchOf) -> int:
        """How many draws there are."""
        return super().length(batch.noise)

    def share(self, batch: MinibatchOf, restarts: slice, draws: slice) -> MinibatchOf:
        """Some of the draws for some of the restarts, with all rows."""
        return MinibatchOf(
            super().share(batch.noise, restarts, draws),
            batch.rows,
            batch.point[restarts],
            batch.offset[restarts],
            batch.tilt[restarts],
        )

    def pieces(self, ensemble: Ensemble, batch: MinibatchOf) -> Sequence[Any]:  # type: ignore[override]
        """The draws in pieces, by what flows and rows write for each of them."""
        noise = super().pieces(ensemble, batch.noise)
        each = self._minibatches.numbers_per_draw() * ensemble.size
        count = kept_at_once(each, self.n_mc, ensemble.flat.device)
        if len(noise) == 1 and count < self.n_mc:
            noise = noise[0].split(count, 1)
        return (batch,) if len(noise) == 1 else _Pieces(batch, noise)

    def __call__(self, ensemble: Ensemble, batch: MinibatchOf, beta: Tensor) -> Evaluation:  # type: ignore[override]
        """Evaluate at draws and rows with the temperature β (R) of each restart."""

        def log_p(x: Tensor) -> Tensor:
            low = self._log_p(x.flatten(0, 1), batch.rows).reshape(x.shape[:2])
            moved = x - batch.point.unsqueeze(1)
            return low + batch.offset.unsqueeze(1) + (moved @ batch.tilt.unsqueeze(2)).squeeze(2)

        return self.evaluated(ensemble, batch.noise, beta, log_p)

    def _log_p(self, z: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        evaluate = partial(self._minibatches.log_prob_of, rows=rows)
        return evaluate_anywhere(evaluate, z, self.target.name)


def reverse_kl(target: Target, n_mc: int, *arguments: Any, **named: Any) -> ReverseKL:
    """The objective for a target: :class:`ReverseKL`, of rows where a step takes but a few.

    Args:
        target: p.
        n_mc: draws a step for each restart.
        arguments: those of :class:`ReverseKL` after these, as are ``named``.
    """
    if not takes_rows(target):
        return ReverseKL(target, n_mc, *arguments, **named)
    every = max(EVERY, int(SHARE * target.steps_of_a_look(n_mc)))
    return MinibatchKL(target, n_mc, *arguments, **named, anchors=Anchors(target, every))
