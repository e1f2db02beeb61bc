"""A running fit to data: the trainer, its rows, and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nfvi.density_data import Split
from nfvi.guide import Guide
from nfvi.standardization import Standardization
from nfvi.training.callbacks import with_progress
from nfvi.training.loop import Trainer
from nfvi.training.state import CallbackLike
from nfvi.training.validation import Validation, ValidationRecord

__all__ = ["Running"]


@dataclass
class Running:
    """What a fit to data is run with, and gone on with."""

    trainer: Trainer
    split: Split
    units: Standardization
    validation: Validation | None

    def run(
        self,
        callbacks: Sequence[CallbackLike],
        progress: bool | None,
        steps: int | None = None,
    ) -> str:
        """Run the trainer; the held-out rows are looked at before other callbacks are called."""
        first = () if self.validation is None else (self.validation,)
        return self.trainer.run((*first, *with_progress(callbacks, progress)), steps)

    def guide(self) -> Guide:
        """The one with the best likelihood of the held-out rows, or else the last one."""
        guide = self.trainer.ensemble.guide(0)
        return guide if self.validation is None else self.validation.restore(guide)

    @property
    def record(self) -> ValidationRecord | None:
        """The looks at the held-out rows."""
        return None if self.validation is None else self.validation.record
