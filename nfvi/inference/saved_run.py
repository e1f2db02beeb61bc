"""A run as a checkpoint holds it, to go on with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.training import Trainer, read_checkpoint, restore

__all__ = ["SavedRun"]


@dataclass(frozen=True)
class SavedRun:
    """What a :class:`~nfvi.Checkpoint` has written.

    Attributes:
        tensors: parameters, optimiser state, random state and records.
        values: the plan and the settings of the fit, and where it was.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str], device: torch.device | str | None) -> SavedRun:
        """Read a checkpoint; errors are those of :func:`nfvi.training.read_checkpoint`."""
        return cls(*read_checkpoint(path, device))

    @property
    def of_data(self) -> bool:
        """Whether it is of a fit to data, and not to a target."""
        return "fingerprint" in self.values

    def continue_in(self, trainer: Trainer, door: str) -> None:
        """Bring a new trainer to where the run was.

        Args:
            trainer: made by the plan of the run.
            door: the method that messages name.

        Raises:
            ValueError: it has another optimiser.
        """
        optimizer = self.values["optimizer"]
        if type(trainer.optimizer).__name__ != optimizer:
            raise ValueError(
                f"the checkpoint was written with optimizer={optimizer}; pass the same"
                f" optimizer= to {door}"
            )
        restore(trainer, self.tensors, self.values)
