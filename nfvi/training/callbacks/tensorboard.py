"""Writing the progress of a fit for TensorBoard."""

from __future__ import annotations

import os
from typing import Any

from nfvi.training.state import Callback, Stop, TrainState
from nfvi.utils import check_whole, next_multiple

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes ELBO, loss, gradient length and β of each restart, and the learning rate.

    A fit to data has its log-likelihood in place of ELBO and β.

    The curves are ``elbo/restart_0`` and so on, in nats and per step as in ``fit.history``; values
    are those of the step itself. A resumed fit continues in the same folder. Needs the extra
    ``tensorboard``; look at it with ``tensorboard --logdir <logdir>``.

    Args:
        logdir: folder for the event files; it is made if it is not there.
        every: steps between points, at least 1.

    Raises:
        ImportError: TensorBoard is not installed.
        ValueError: ``every`` is not an integer of at least 1.
    """

    def __init__(self, logdir: str | os.PathLike[str], every: int = 10) -> None:
        check_whole("every", every, 1)
        self.logdir, self.every = os.fspath(logdir), every
        self._make = _summary_writer()
        self._writer: Any = None

    def open(self, state: TrainState) -> None:
        # Points after a checkpoint that a fit is resumed from are drawn again.
        if state.first:
            self._writer = self._make(self.logdir, purge_step=state.step + 1)

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        if state.first and state.step % self.every == 0:
            for name in state.history.fields:
                if name.endswith("_se"):
                    continue
                for i, value in enumerate(state.history.last(name, 1)[0].tolist()):
                    self._writer.add_scalar(f"{name}/restart_{i}", value, state.step)
            self._writer.add_scalar("lr", state.lr, state.step)
        return None

    def close(self, state: TrainState) -> None:
        if state.first:
            self._writer.close()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "TensorBoard needs the extra `tensorboard`: pip install 'nfvi[tensorboard]'"
        ) from error
    return SummaryWriter
