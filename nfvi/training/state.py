"""What a callback sees of a running fit, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from nfvi.guides import Guide
from nfvi.training.history import History
from nfvi.training.loop_state import LoopState

__all__ = ["Callback", "Stop", "TrainState"]


@dataclass(frozen=True)
class Stop:
    """The answer of a callback that ends the fit; ``reason`` is shown by ``print(fit)``."""

    reason: str


class Callback:
    """Base of the callbacks that come with nfvi; a plain function of the state will do as well.

    The loop calls :meth:`open` before the first step, the callback itself after every step and
    :meth:`close` at the end, also after an error (:attr:`TrainState.stopped` tells which).
    """

    goes_last: ClassVar[bool] = False
    """Whether it is called after all others, whatever its place in ``callbacks=``."""

    def open(self, state: TrainState) -> None:
        """Called once before the first step of a run; ``state.step`` is over 0 if it continues."""

    def __call__(self, state: TrainState) -> Stop | None:
        """Called after every step."""
        return None

    def close(self, state: TrainState) -> None:
        """Called once after the last step."""

    def next_look(self, step: int) -> int:
        """The next step after ``step`` after which it must be called.

        On CUDA, steps up to that one may be done in one go; then it is called once for all of them.
        One that does not say so sees every step.
        """
        return step + 1

    def groups(self, step: int) -> int:
        """Into how many groups of draws the gradient of this step should be split; 0 for none."""
        return 0

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold so that a resumed callback continues as if never stopped.

        A class that overrides this overrides :meth:`load_state_dict` as well, and belongs among
        the ``callbacks=`` of a resumed fit.
        """
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the state from a checkpoint."""


Snapshot: TypeAlias = Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
CallbackLike: TypeAlias = Callback | Callable[["TrainState"], Any]


class TrainState:
    """The fit after a step.

    R is the number of restarts; those that were pruned have NaN. Tensors are detached views, so
    clone what is to be kept.
    """

    def __init__(self, loop: LoopState, snapshot: Snapshot) -> None:
        self._loop, self._snapshot = loop, snapshot

    @property
    def step(self) -> int:
        """Steps done, from 1."""
        return self._loop.step

    @property
    def formula(self) -> str:
        """Of the guide; with ``NFVI("auto")`` that of this rung."""
        return str(self._loop.settings["formula"])

    @property
    def steps(self) -> int:
        """The step at which this run ends if nothing stops it."""
        return self._loop.last

    @property
    def rows(self) -> int | None:
        """Rows of data that a step takes; ``None`` where there are none."""
        return self._loop.objective.rows_a_step

    @property
    def first(self) -> bool:
        """Whether this process is to write files and show bars: of several, one does."""
        return self._loop.ranks.rank == 0

    @property
    def stopped(self) -> str | None:
        """Why it ended: ``"steps"``, ``"converged"``, ``"interrupted"`` or the reason of a Stop.

        ``None`` while it continues, and in :meth:`Callback.close` after an error.
        """
        return self._loop.stopped

    @property
    def history(self) -> History:
        """What was recorded of every step up to this one."""
        return self._loop.history

    @property
    def loss(self) -> Tensor:
        """E[log q − β log p] of this step (R); minus the log-likelihood for a fit to data."""
        return self.history.last("loss", 1)[0]

    @property
    def elbo(self) -> Tensor:
        """E[log p − log q] of this step's draws (R), before the update; of a fit to a target."""
        return self.history.last("elbo", 1)[0]

    @property
    def log_likelihood(self) -> Tensor:
        """Mean of log q over this step's rows (R), before the update; of a fit to data."""
        return self.history.last("log_likelihood", 1)[0]

    @property
    def beta(self) -> Tensor:
        """β of this step (R); of a fit to a target."""
        return self.history.last("beta", 1)[0]

    @property
    def lr(self) -> float:
        """Learning rate of this step."""
        return self.history.last_lr

    @property
    def alive(self) -> Tensor:
        """Which restarts have not been dropped or pruned (R)."""
        return self._loop.whole(self._loop.guard.alive, False)

    @property
    def best(self) -> int:
        """The restart with the highest ELBO or log-likelihood, averaged over the last 50 steps."""
        mean = self.history.last(self.history.quantity, 50).nanmean(0)
        return int(torch.where(self.alive & mean.isfinite(), mean, -torch.inf).argmax())

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Parameters after the update, by tracked name (``u_0``, …): each (R, \\*shape)."""
        return self._named(self._loop.ensemble.flat.detach())

    @property
    def gradients(self) -> dict[str, Tensor]:
        """The gradients that the update used, after clipping: each (R, \\*shape)."""
        return self._named(self._loop.gradient)

    @property
    def group_gradients(self) -> dict[str, Tensor] | None:
        """The gradient of each group of draws, where :meth:`Callback.groups` asked for it.

        Each (G, R, \\*shape), before clipping; groups of equal size have the plain gradient as
        their mean.
        """
        groups = self._loop.group_gradients
        if groups is None:
            return None
        whole = torch.stack([self._loop.whole(group) for group in groups])
        return self._loop.ensemble.named(whole)

    @property
    def flows(self) -> tuple[str, ...]:
        """The flow of each layer, in order of application; ``u_3`` belongs to ``flows[3]``."""
        return tuple(str(layer) for layer in self._loop.ensemble.template.formula)

    def guide(self, restart: int | None = None) -> Guide:
        """A copy of the guide of one restart; default :attr:`best`."""
        return self._loop.guide(self.best if restart is None else restart)

    def _named(self, values: Tensor) -> dict[str, Tensor]:
        return self._loop.ensemble.named(self._loop.whole(values))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able values from which ``NFVI.resume`` continues bit for bit."""
        return self._snapshot()
