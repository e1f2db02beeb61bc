"""Maximum likelihood: rows of data, the objective over them, and held-out rows that watch it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nfvi.guides import Guide, draws_at_once
from nfvi.training import Ensemble, Objective

__all__ = ["LogLikelihood", "MaximumLikelihood", "Rows", "log_likelihood_of"]

# Rows at once, as in density.py.
CHUNK = 16_384


@dataclass(frozen=True)
class Rows:
    """Rows of data as a guide sees them: standardised, in its dtype and on its device.

    Attributes:
        x: (n, d).
        context: (n, c), or ``None``.
        weights: (n) with mean 1, or ``None`` where all rows count alike.
        bend: (n), what the compression of outliers takes off log q; ``None`` without one.
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None
    bend: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """All four, as the class takes them."""
        return self.x, self.context, self.weights, self.bend

    def take(self, index: Tensor | slice) -> Rows:
        """The rows of an index (m) or of a slice."""
        return Rows(*(None if part is None else part[index] for part in self.parts))  # type: ignore[arg-type]


class LogLikelihood(NamedTuple):
    """One term a row (R, n): the loss that is differentiated, and log q, which is not."""

    loss: Tensor
    log_likelihood: Tensor


class MaximumLikelihood(Objective):
    """Minus the mean over rows of w log q(x | context), in the units of the data.

    A step takes the next ``batch_size`` rows of the data in random order, with a new order for
    every epoch, so that each row is seen once an epoch; a batch may hold the end of one epoch and
    the start of the next. The order depends on seed and epoch alone, so that a step has the same
    rows whether or not the fit was stopped and resumed before it.

    Args:
        rows: what to fit.
        batch_size: rows a step; as many as there are means all of them, in their own order.
        seed: of the order.
        log_scale: log|det| of the standardisation, Σ log sd: log q in the units of the data is
            lower by that.
    """

    quantity = "log_likelihood"
    advice = (
        "Try a smaller lr= or dtype=torch.float64, and look for columns that depend on each other"
        " or repeat few values, where a density can grow without bound."
    )

    def __init__(self, rows: Rows, batch_size: int, seed: int, log_scale: float) -> None:
        self.rows, self.batch_size, self.seed, self.log_scale = rows, batch_size, seed, log_scale
        self._orders: OrderedDict[int, Tensor] = OrderedDict()

    @property
    def rows_a_step(self) -> int:
        return min(self.batch_size, len(self.rows))

    def draw(self, ensemble: Ensemble, step: int, generator: torch.Generator) -> Rows:
        """The rows of a step, counted from 0."""
        n, size = len(self.rows), self.batch_size
        if size >= n:
            return self.rows
        first, start = divmod(step * size, n)
        index = self._order(first)[start : start + size]
        if len(index) < size:
            index = torch.cat([index, self._order(first + 1)[: size - len(index)]])
        return self.rows.take(index)

    def tensors(self, batch: Rows) -> tuple[Tensor, ...]:
        """Those of x, context, weights and bend that there are."""
        return tuple(part for part in batch.parts if part is not None)

    def batch_of(self, tensors: Sequence[Tensor], like: Rows) -> Rows:
        """Rows of such tensors, with the same parts as other rows."""
        left = iter(tensors)
        return Rows(*(None if part is None else next(left) for part in like.parts))  # type: ignore[arg-type]

    def length(self, batch: Rows) -> int:
        """How many rows there are."""
        return len(batch)

    def share(self, batch: Rows, restarts: slice, draws: slice) -> Rows:
        """Some of the rows."""
        return batch.take(draws)

    def pieces(self, ensemble: Ensemble, batch: Rows) -> Sequence[Rows]:
        """The rows in pieces, by the numbers that the flows keep for the gradient."""
        n = len(batch)
        count = ensemble.at_once(n)
        if count == n:
            return (batch,)
        return [batch.take(slice(first, first + count)) for first in range(0, n, count)]

    def __call__(self, ensemble: Ensemble, batch: Rows, beta: Tensor) -> LogLikelihood:
        """Evaluate at rows (n, d); β is 1 in a fit to data."""
        value = ensemble.log_likelihood(batch.x, batch.context) - self.log_scale
        if batch.bend is not None:
            value = value - batch.bend
        if batch.weights is not None:
            value = value * batch.weights
        return LogLikelihood(-value, value.detach())

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
            self._orders[epoch] = torch.from_numpy(order).to(self.rows.x.device)
            if len(self._orders) > 2:
                self._orders.popitem(last=False)
        return self._orders[epoch]


@torch.no_grad()
def log_likelihood_of(guide: Guide, rows: Rows) -> Tensor:
    """log q of each row (n) up to Σ log sd, in pieces of 16 384 or of what fits into memory."""
    count = draws_at_once(guide, CHUNK)
    contexts = repeat(None) if rows.context is None else rows.context.split(count)
    pieces = zip(rows.x.split(count), contexts, strict=False)
    log_q = torch.cat([guide.log_prob(x, context=context) for x, context in pieces])
    return log_q if rows.bend is None else log_q - rows.bend
