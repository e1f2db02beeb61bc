"""What changes the course of a running fit from within: its length, its draws, its restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from nfvi.training.loop import Trainer

__all__ = ["Control"]


class Control:
    """Called by the loop after every step, before the callbacks; it may change the trainer.

    What it decides depends on the trainer and on :meth:`state_dict` alone, so that a fit that is
    resumed from a checkpoint goes on bit for bit.
    """

    def __call__(self, trainer: Trainer) -> None:
        """Look at the trainer after a step, and change it where that is due."""
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        """Called when all restarts but some, given by their rows, have been removed."""

    def state_dict(self, trainer: Trainer) -> dict[str, Tensor]:
        """What a checkpoint must hold of it."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], trainer: Trainer) -> None:
        """Take up the state from a checkpoint."""
