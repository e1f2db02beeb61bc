"""DensityFit: a density fitted to data, with the record of the fit and how good it is."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nfvi.density.data_setup import total_steps
from nfvi.density.density import Density
from nfvi.density.file import DensityRecord, load_density, save_density
from nfvi.density.html import density_html
from nfvi.density.quality import Quality, Scored, evaluate_fit
from nfvi.density.report import density_report
from nfvi.density.run import Running
from nfvi.density.standardization import Standardization
from nfvi.density.text import DensityReport, describe
from nfvi.density.validation import ValidationRecord
from nfvi.errors import FitError
from nfvi.guides import Guide
from nfvi.training import CallbackLike, History
from nfvi.utils import check_whole, to_inference_data, write_report

__all__ = ["DensityFit"]


class DensityFit(Density):
    """What :meth:`nfvi.NFVI.fit_data` returns: a density q(x), or q(x | context), of data.

    Everything here is in the units of the data. ``print(fit)`` says in words how good it is.

    Attributes:
        guide: q of standardised rows.
        standardization: mean and sd of each column, by which rows are standardised, and where
            outliers are compressed.
        history: loss, log-likelihood of the batches and gradient length at every step.
        validation: the log-likelihood of the held-out rows in the course of the fit, a
            :class:`~nfvi.density.validation.ValidationRecord`; ``None`` where none were held out.
        quality: log-likelihood of the training and of the held-out rows, with standard errors.
        stopped: ``"steps"``, ``"interrupted"``, or the reason a callback gave.
        wall_time: seconds of fitting.
        settings: formula, base, seed, epochs, batch size and so on.
    """

    def __init__(
        self,
        guide: Guide,
        standardization: Standardization,
        *,
        settings: dict[str, Any],
        history: History,
        validation: ValidationRecord | None,
        scored: Scored,
        stopped: str,
        wall_time: float,
        running: Running | None = None,
    ) -> None:
        super().__init__(guide, standardization, settings)
        self.history, self.validation = history, validation
        self.stopped, self.wall_time = stopped, wall_time
        self._scored, self._running = scored, running

    @classmethod
    def from_running(
        cls,
        running: Running,
        callbacks: Sequence[CallbackLike],
        progress: bool | None,
        start: float,
    ) -> DensityFit:
        """Run a fit to its end and keep its best state."""
        start -= running.trainer.wall_time  # what a checkpoint was written after
        stopped = running.run(callbacks, progress)
        guide = running.guide()
        return cls(
            guide,
            running.units,
            settings=running.trainer.settings,
            history=running.trainer.history,
            validation=running.record,
            scored=evaluate_fit(guide, running.split, running.units),
            stopped=stopped,
            wall_time=time.perf_counter() - start,
            running=running,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return len(self.history)

    @property
    def quality(self) -> Quality:
        """Log-likelihood of the training and of the held-out rows."""
        return self._scored.quality

    def anomaly_threshold(self, quantile: float) -> float:
        """The log-likelihood below which a fraction ``quantile`` of the reference rows lies.

        Rows with a lower ``score_samples`` are rarer than that. The reference is the held-out rows
        where there are any, since those that trained the fit look likelier than new ones, and
        otherwise the training rows. For small quantiles hold out many rows.

        Args:
            quantile: from above 0 to below 1.

        Raises:
            ValueError: the quantile is out of its range.
        """
        if not isinstance(quantile, float | int) or not 0 < quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1, got {quantile!r}")
        scores, weights = self._scored.scores.numpy(), self._scored.weights
        if quantile * len(scores) < 1:
            held = "held-out" if self.quality.held_out is not None else "training"
            warnings.warn(
                f"quantile={quantile} of {len(scores):,} {held} rows is less than one row: the"
                " threshold is near the lowest of them, whatever their distribution",
                UserWarning,
                stacklevel=2,
            )
        if weights is None:
            return float(np.quantile(scores, quantile))
        weighted = {"weights": weights.numpy(), "method": "inverted_cdf"}
        return float(np.quantile(scores, quantile, **weighted))  # type: ignore[call-overload]

    def refine(
        self, epochs: int, *, callbacks: Sequence[CallbackLike] = (), progress: bool | None = None
    ) -> DensityFit:
        """Go on fitting from where the fit stopped, in place.

        Epochs that an interrupted fit had left are made up first, exactly as they would have been;
        further ones are a new cycle of the learning rate, with a peak of 0.3 of the first. The
        best state on the held-out rows, earlier ones included, is kept.

        Args:
            epochs: how often each row is seen once more.
            callbacks: as for :meth:`nfvi.NFVI.fit_data`.
            progress: as for :meth:`nfvi.NFVI.fit_data`.

        Returns:
            This fit.

        Raises:
            FitError: the fit was read from a file, which holds no data.
        """
        check_whole("epochs", epochs, 1)
        if self._running is None:
            raise FitError("this fit has no data; NFVI(...).fit_data(x) fits again")
        running, started = self._running, time.perf_counter()
        steps = total_steps(epochs, len(running.split.train), self.settings["batch_size"])
        self.stopped = running.run(callbacks, progress, steps)
        self.guide = running.guide().requires_grad_(False).eval()
        self.history, self.validation = running.trainer.history, running.record
        self._scored = evaluate_fit(self.guide, running.split, running.units)
        self.wall_time += time.perf_counter() - started
        return self

    def to_arviz(self, n: int = 1_000, context: Any = None, *, seed: int | None = None) -> Any:
        """n draws as one chain for ArviZ, with their log q as ``lp`` in ``sample_stats``.

        The columns of a table are variables of their own, others are one variable ``x``. See
        :func:`nfvi.utils.arviz_export.to_inference_data` for the type.
        """
        draws = self._draws(n, context, seed)
        log_q = self.log_prob(draws, context)
        attrs = {"inference_library": "nfvi", "sampling_time": self.wall_time, **self._attributes()}
        return to_inference_data(
            {name: value.unsqueeze(0) for name, value in self._sites(draws).items()},
            {"lp": log_q.unsqueeze(0)},
            attrs,
        )

    def report(
        self,
        path: str | os.PathLike[str],
        x: Any = None,
        *,
        context: Any = None,
        shell: bool = False,
    ) -> None:
        """Write all that is known of the fit to one HTML file, which loads nothing from elsewhere.

        Args:
            path: the file; its folder must exist.
            x: rows to draw beside the density, or beside draws of it where there are more than two
                columns; default none.
            context: one context (c), where the fit has one; density and summary are at it, and are
                left out without it.
            shell: as for :meth:`describe`.

        Raises:
            ImportError: the extra ``nfvi[plots]`` is missing.
            TypeError, ValueError: x or context cannot be of this fit.
            OSError: the file cannot be written.
        """
        if x is not None:
            self.rows(x)
        write_report(path, lambda: density_report(self, self._report(shell), x, context))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write density, history and quality to a safetensors file; the data are not kept."""
        record = DensityRecord(
            guide=self.guide,
            standardization=self.standardization,
            settings=self.settings,
            history=self.history,
            validation=self.validation,
            scored=self._scored,
            stopped=self.stopped,
            wall_time=self.wall_time,
        )
        save_density(record, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], map_location: torch.device | str | None = None
    ) -> DensityFit:
        """Read a fit that :meth:`save` wrote; nothing in the file is run.

        Args:
            path: the file.
            map_location: where to put the guide; default the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            FitError: the file is truncated or damaged, not such a fit, or of a newer version.
        """
        return cls(**vars(load_density(path, map_location)))

    def _attributes(self) -> dict[str, Any]:
        names = ("formula", "base", "seed", "epochs", "batch_size")
        held_out = self.quality.held_out
        return {
            **{name: self.settings[name] for name in names},
            "steps": self.steps,
            "log_likelihood": self.quality.train.mean,
            "held_out_log_likelihood": None if held_out is None else held_out.mean,
        }

    def __getstate__(self) -> dict[str, Any]:
        # Optimiser and data stay behind, as in a file.
        return {**super().__getstate__(), "_running": None}

    def describe(self, *, shell: bool = False) -> str:
        """What ``print(fit)`` shows.

        Args:
            shell: whether advice names options of the command line in place of methods and
                arguments.
        """
        return describe(self._report(shell))

    def _report(self, shell: bool = False) -> DensityReport:
        return DensityReport(
            formula=str(self.formula),
            base=str(self.guide.base),
            dim=self.dim,
            context_dim=self.context_dim,
            seed=self.seed,
            steps=self.steps,
            batch_size=self.settings["batch_size"],
            wall_time=self.wall_time,
            stopped=self.stopped,
            quality=self.quality,
            validation=self.validation,
            notes=tuple(self.settings.get("notes", ())),
            shell=shell,
        )

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return density_html(self._report(), self.history.log_likelihood[:, 0].tolist())

    def __repr__(self) -> str:
        return f"<DensityFit {str(self.formula)!r}, dim={self.dim}, steps={self.steps}>"
