"""Fit: a fitted guide with the target, the record of the fit and how good it is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nfvi.arviz_export import to_inference_data
from nfvi.checks import check_whole
from nfvi.diagnostics import Diagnostics, WeightedDraws, diagnose, draw_weighted
from nfvi.errors import FitError
from nfvi.fit_file import load_fit, save_fit
from nfvi.fit_text import describe, summarize
from nfvi.formula import Formula
from nfvi.guide import Guide
from nfvi.targets import Target
from nfvi.training.callbacks import with_progress
from nfvi.training.history import History
from nfvi.training.loop import Trainer
from nfvi.training.restarts import Restart, rank
from nfvi.training.setup import trainer_of_guide
from nfvi.training.state import CallbackLike

__all__ = ["Fit"]

DIAGNOSTIC_DRAWS = 10_000


class Fit:
    """What :meth:`nfvi.NFVI.fit` returns: an approximation q of the target, and its quality.

    ``print(fit)`` says in words what the numbers mean. They are computed from 10 000 draws when
    one of them is first asked for, and again after :meth:`refine`.

    Attributes:
        guide: q on unconstrained space.
        target: the target, or ``None`` for a loaded fit that was given none.
        history: ELBO, loss, gradient length and β at every step.
        restarts: every restart with its final ELBO; one is marked best, and is the guide.
        seed: that of the whole fit.
        stopped: ``"steps"``, ``"interrupted"``, or the reason a callback gave.
        wall_time: seconds of fitting, diagnostics left out.
        steps: optimiser steps done.
        gradient_evaluations: draws at which the gradient of the target was taken, in all
            restarts.
    """

    def __init__(
        self,
        guide: Guide,
        target: Target | None,
        *,
        history: History,
        restarts: tuple[Restart, ...],
        settings: dict[str, Any],
        stopped: str,
        wall_time: float,
        gradient_evaluations: int,
        diagnostics: Diagnostics | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        self.guide = guide.requires_grad_(False).eval()
        self.target = target
        self.history, self.restarts = history, restarts
        self.settings, self.stopped, self.wall_time = settings, stopped, wall_time
        self._gradient_evaluations = gradient_evaluations
        self._diagnostics, self._trainer = diagnostics, trainer
        # A stream of its own, so that draws taken from a fit do not change how it is refined.
        self._generator = torch.Generator(guide.device).manual_seed(self.seed)

    @classmethod
    def from_trainer(
        cls, trainer: Trainer, callbacks: Sequence[CallbackLike], started: float
    ) -> Fit:
        """Run a trainer to its end and keep its best restart."""
        started -= trainer.wall_time  # what a checkpoint was written after
        stopped = trainer.run(callbacks)
        restarts = rank(trainer, trainer.settings["seed"])
        return cls(
            trainer.ensemble.guide(_best(restarts)),
            trainer.target,
            history=trainer.history,
            restarts=restarts,
            settings=trainer.settings,
            stopped=stopped,
            wall_time=time.perf_counter() - started,
            gradient_evaluations=trainer.gradient_evaluations,
            trainer=trainer,
        )

    @property
    def seed(self) -> int:
        """The seed that fixes the fit."""
        return int(self.settings["seed"])

    @property
    def formula(self) -> Formula:
        """The formula of the guide."""
        return self.guide.formula

    @property
    def dim(self) -> int:
        """d, the dimension of unconstrained space."""
        return self.guide.dim

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return len(self.history)

    @property
    def gradient_evaluations(self) -> int:
        """Draws at which the target's gradient was taken, in all restarts together."""
        return self._gradient_evaluations

    @property
    def diagnostics(self) -> Diagnostics:
        """All numbers about the quality of the fit, computed from 10 000 draws once."""
        if self._diagnostics is None:
            generator = torch.Generator(self.guide.device).manual_seed(self.seed + 1)
            draws = draw_weighted(self.guide, self._known_target(), DIAGNOSTIC_DRAWS, generator)
            self._diagnostics = diagnose(draws)
        return self._diagnostics

    @property
    def elbo(self) -> float:
        """E_q[log p − log q] = log Z − KL(q ‖ p), nats."""
        return self.diagnostics.elbo

    @property
    def elbo_se(self) -> float:
        """Monte-Carlo standard error of :attr:`elbo`."""
        return self.diagnostics.elbo_se

    @property
    def khat(self) -> float:
        """Pareto k-hat of the importance weights; below 0.7 they can be used."""
        return self.diagnostics.khat

    @property
    def ess(self) -> float:
        """Effective draws after importance weighting, out of 10 000."""
        return self.diagnostics.ess

    @property
    def log_evidence(self) -> float:
        """Importance-sampling estimate of log Z, nats."""
        return self.diagnostics.log_evidence

    @property
    def log_evidence_se(self) -> float:
        """Standard error of :attr:`log_evidence`."""
        return self.diagnostics.log_evidence_se

    def sample(self, n: int, *, seed: int | None = None) -> Any:
        """Draws from the guide.

        Args:
            n: how many.
            seed: for the same draws each time; ``None`` goes on in the fit's own stream.

        Returns:
            A tensor (n, d) for a log-density; a dict of constrained sites, each (n, \\*event),
            for a model.
        """
        check_whole("n", n, 1)
        return self._sites(self.guide.sample(n, generator=self._stream(seed)))

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) (\\*) at points z (\\*, d) of unconstrained space."""
        if z.shape[-1:] != (self.dim,):
            raise ValueError(f"z must be (*, {self.dim}) for this fit, got {tuple(z.shape)}")
        return self.guide.log_prob(z)

    def weighted_draws(self, n: int, *, seed: int | None = None) -> WeightedDraws:
        """n unconstrained draws with log p, log q and Pareto-smoothed importance weights."""
        check_whole("n", n, 1)
        return draw_weighted(self.guide, self._known_target(), n, self._stream(seed))

    def importance_resample(self, n: int, *, seed: int | None = None) -> Any:
        """Draws from the guide resampled by their importance weights, closer to the target.

        10 n draws (at least 10 000) are weighted with Pareto-smoothed weights, and n of them
        are chosen with replacement. Only as good as k-hat allows, see ``print(fit)``.

        Args:
            n: how many.
            seed: as for :meth:`sample`.

        Returns:
            The same form as :meth:`sample`.

        Reference:
            Smith and Gelfand, Bayesian statistics without tears: a sampling-resampling
            perspective, 1992.
        """
        check_whole("n", n, 1)
        stream = self._stream(seed)
        draws = draw_weighted(self.guide, self._known_target(), max(10 * n, 10_000), stream)
        if not bool((draws.log_weights > -torch.inf).any()):
            raise FitError("no draw of the guide has a finite log-density under the target")
        # torch.multinomial takes at most 2²⁴ categories, and inverting the CDF is as good.
        total = draws.log_weights.exp().cumsum(0)
        uniform = torch.rand(n, generator=stream, dtype=total.dtype, device=total.device)
        index = torch.searchsorted(total, uniform * total[-1]).clamp_max(len(total) - 1)
        return self._sites(draws.z[index])

    def refine(
        self, steps: int, *, callbacks: Sequence[CallbackLike] = (), progress: bool | None = None
    ) -> Fit:
        """Go on fitting from where the fit stopped, in place.

        Steps that an interrupted or stopped fit had left are made up first, exactly as they
        would have been; further ones are a new cycle of the learning rate, with a peak of 0.3
        of the first. Restarts go on side by side, and the best is chosen anew. A fit loaded
        from a file has one restart and a new optimiser.

        Args:
            steps: how many.
            callbacks: as for :meth:`nfvi.NFVI.fit`.
            progress: as for :meth:`nfvi.NFVI.fit`.

        Returns:
            This fit.
        """
        check_whole("steps", steps, 1)
        started = time.perf_counter()
        trainer = self._trainer
        if trainer is None:
            history = self.history.select(_best(self.restarts))
            trainer = trainer_of_guide(self.guide, self._known_target(), self.settings, history)
            trainer.gradient_evaluations = self._gradient_evaluations
        self.stopped = trainer.run(with_progress(callbacks, progress), steps)
        self._trainer, self.history, self.settings = trainer, trainer.history, trainer.settings
        self._gradient_evaluations = trainer.gradient_evaluations
        self.restarts = rank(trainer, self.seed)
        self.guide = trainer.ensemble.guide(_best(self.restarts)).requires_grad_(False).eval()
        self.wall_time += time.perf_counter() - started
        self._diagnostics = None
        return self

    def summary(self, n: int = 10_000) -> str:
        """A table of mean, sd and quantiles of every scalar, from n draws of the guide."""
        draws = self.sample(n, seed=0)
        return summarize(draws if isinstance(draws, dict) else {"z": draws})

    def to_arviz(self, n: int = 1_000, *, seed: int | None = None) -> Any:
        """n draws as one chain for ArviZ, with log p and log q in ``sample_stats``.

        The diagnostics are attributes. See :func:`nfvi.arviz_export.to_inference_data` for the
        type.
        """
        draws = self.weighted_draws(n, seed=seed)
        posterior = self._known_target().constrain(draws.z)
        attrs = {
            "inference_library": "nfvi",
            "formula": str(self.formula),
            "base": str(self.guide.base),
            "seed": self.seed,
            "steps": self.steps,
            "sampling_time": self.wall_time,
            **self.diagnostics.as_dict(),
        }
        return to_inference_data(
            {name: value.unsqueeze(0) for name, value in posterior.items()},
            {"lp": draws.log_p.unsqueeze(0), "log_q": draws.log_q.unsqueeze(0)},
            attrs,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write guide, history and diagnostics to a safetensors file; the target is not kept."""
        save_fit(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        target: Any = None,
        map_location: torch.device | str | None = None,
    ) -> Fit:
        """Read a fit that :meth:`save` wrote; nothing in the file is run.

        Args:
            path: the file.
            target: the target it was fitted to, needed to refine it, to weigh draws, and for
                the sites of a model: as for :meth:`nfvi.NFVI.fit`, or a
                :class:`~nfvi.PyroTarget` for a model with arguments.
            map_location: where to put the guide; default the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            FitError: the file is truncated, not from nfvi, or of a newer version.
            TargetError: the target has another dimension.
        """
        return cls(**load_fit(path, target, map_location))

    def __str__(self) -> str:
        return describe(self)

    def __repr__(self) -> str:
        name = "no target" if self.target is None else self.target.name
        return f"<Fit {str(self.formula)!r} of {name}, dim={self.dim}, steps={self.steps}>"

    def _sites(self, z: Tensor) -> Any:
        if self.target is None and self.settings["named"]:
            self._known_target()
        if self.target is None or not self.target.named:
            return z
        return self.target.constrain(z)

    def _known_target(self) -> Target:
        if self.target is None:
            raise FitError(
                f"this fit was loaded without its target {self.settings['target']!r}; pass it as"
                " Fit.load(path, target=...). fit.guide.sample(n) gives unconstrained draws"
            )
        return self.target

    def _stream(self, seed: int | None) -> torch.Generator:
        if seed is None:
            return self._generator
        return torch.Generator(self.guide.device).manual_seed(seed)


def _best(restarts: tuple[Restart, ...]) -> int:
    return next(restart.index for restart in restarts if restart.best)
