"""A running fit to data: the trainer, its rows, and those that are held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from nfvi.density.split import Split
from nfvi.density.standardization import Standardization
from nfvi.density.validation import Validation, ValidationRecord
from nfvi.guides import Guide
from nfvi.training import CallbackLike, Trainer, with_progress

__all__ = ["Running"]

logger = logging.getLogger(__name__)


@dataclass
class Running:
    """What a fit to data is run with, and continued with."""

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
        if self.record is not None:
            logger.info("kept the state of step %d of %d", self.record.best_step, self.trainer.step)
        return guide if self.validation is None else self.validation.restore(guide)

    @property
    def record(self) -> ValidationRecord | None:
        """The looks at the held-out rows."""
        return None if self.validation is None else self.validation.record
