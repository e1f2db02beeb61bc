"""Fit: a fitted guide with the target, the record of the fit and how good it is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from nfvi.fit.approximation import Approximation
from nfvi.fit.beside import Beside, beside
from nfvi.fit.combine import check_apart, outcome
from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.file import FitRecord, load_fit, save_fit, target_for
from nfvi.fit.html import fit_html
from nfvi.fit.neutra import nuts_in_base_space, single_flow
from nfvi.fit.path import ClimbPath
from nfvi.fit.report import ComparedLike, check_beside, fit_report
from nfvi.fit.restarts import Restart, kept, still_rises
from nfvi.fit.text import FitReport, describe
from nfvi.fit.verification import Verification
from nfvi.fit.verification_run import MOST_ITERATIONS, verify_guide
from nfvi.guides import AnyGuide, sample_in_pieces
from nfvi.mcmc import DENSE_LIMIT, MCMCRun
from nfvi.search import MissedMass
from nfvi.targets import Target, affordable, graphs
from nfvi.training import (
    CallbackLike,
    Crew,
    GradientTracker,
    History,
    Ranks,
    Trainer,
    late_errors,
    trainer_of_guide,
    with_progress,
)
from nfvi.utils import check_flag, check_positive, check_whole, counted, write_report

__all__ = ["Fit"]

# A mean that is off by 0.07 sd is seen with them.
CHAINS = 2_000


class Fit(Approximation):
    """What :meth:`nfvi.NFVI.fit` returns: an approximation q of the target, and its quality.

    ``print(fit)`` says in words what the numbers mean. They are computed from 10 000 draws when
    one of them is first asked for, and again after :meth:`refine`.

    Attributes:
        guide: q on unconstrained space; a mixture with ``combine="mixture"``, if it takes one.
        target: the target, or ``None`` for a loaded fit that was given none.
        history: ELBO, loss, gradient length and β at every step.
        restarts: every restart with its final ELBO; the best one, or those with a weight, are
            the guide.
        seed: that of the whole fit.
        stopped: ``"steps"``, ``"converged"``, ``"interrupted"``, or the reason a callback gave;
            ``"auto"`` for a climb that came to its own end, and the budget if it did not.
        wall_time: seconds of fitting, diagnostics left out.
        steps: optimiser steps done.
        gradient_evaluations: draws at which the gradient of the target was taken, in all
            restarts, with those that ``init=`` and ``lr="auto"`` took.
        batched_evaluations: batches in which it was taken, one after the other.
        path: the rungs of ``NFVI("auto")``, see :class:`~nfvi.fit.path.ClimbPath`; ``None`` for
            a formula that was named. The history is that of the rung that was kept, empty for a
            Gaussian; evaluations and wall time are those of all rungs.
        missed: of the search for mass that the guide misses.
        verification: what :meth:`verify` found last, if it was run; a file does not keep it.
        verdict: one word for all of this, and why.
    """

    def __init__(
        self,
        guide: AnyGuide,
        target: Target | None,
        *,
        history: History,
        restarts: tuple[Restart, ...],
        settings: dict[str, Any],
        stopped: str,
        wall_time: float,
        gradient_evaluations: int,
        batched_evaluations: int | None = None,
        diagnostics: Diagnostics | None = None,
        trainer: Trainer | None = None,
        path: ClimbPath | None = None,
        missed: MissedMass | None = None,
        verified: bool | None = None,
        log_normalizer: float | None = None,
    ) -> None:
        super().__init__(
            guide,
            target,
            settings,
            diagnostics,
            missed=missed,
            verified=verified,
            log_normalizer=log_normalizer,
        )
        self.path = path
        self.history, self.restarts = history, restarts
        self.stopped, self.wall_time = stopped, wall_time
        self._gradient_evaluations, self._trainer = gradient_evaluations, trainer
        self._batched_evaluations = batched_evaluations
        self.verification: Verification | None = None

    @classmethod
    def from_trainer(
        cls, trainer: Trainer, callbacks: Sequence[CallbackLike], started: float
    ) -> Fit:
        """Run a trainer to its end and keep its best restart, or a mixture."""
        started -= trainer.wall_time  # what a checkpoint was written after
        stopped = trainer.run(callbacks)
        with late_errors(trainer):
            guide, restarts = outcome(trainer)
        fit = cls(
            guide,
            trainer.target,
            history=trainer.history,
            restarts=restarts,
            settings=trainer.settings,
            stopped=stopped,
            wall_time=time.perf_counter() - started,
            gradient_evaluations=trainer.gradient_evaluations,
            batched_evaluations=trainer.batched_evaluations,
            trainer=trainer,
        )
        fit._diagnose_together(trainer.ranks)
        return fit

    def _diagnose_together(self, ranks: Ranks) -> None:
        """While all processes are here: later, one of them alone may ask for diagnostics."""
        if ranks.size > 1:
            self._diagnostics = self._diagnosed(ranks)

    @property
    def kept(self) -> list[int]:
        """The restarts that the guide is made of: those of a mixture, or the best one."""
        return kept(self.restarts)

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return len(self.history)

    @property
    def gradient_evaluations(self) -> int:
        """Draws at which the target's gradient was taken, in all restarts together."""
        return self._gradient_evaluations

    @property
    def batched_evaluations(self) -> int:
        """Batches in which that gradient was taken, one after the other; compare with NUTS."""
        # Files of earlier versions do not say, and had one for each step.
        return self.steps if self._batched_evaluations is None else self._batched_evaluations

    def refine(
        self, steps: int, *, callbacks: Sequence[CallbackLike] = (), progress: bool | None = None
    ) -> Fit:
        """Go on fitting from where the fit stopped, in place.

        Steps that an interrupted or stopped fit had left are made up first, exactly as they
        would have been; further ones are a new cycle of the learning rate, with a peak of 0.3
        of the first. Restarts go on side by side, and the best is chosen anew, or weights are
        found anew. A fit loaded from a file has a new optimiser, and one restart, or those of its
        mixture.

        Args:
            steps: how many.
            callbacks: as for :meth:`nfvi.NFVI.fit`.
            progress: as for :meth:`nfvi.NFVI.fit`.

        Returns:
            This fit.

        Raises:
            FitError: the guide is a mixture of Gaussians, as ``"auto"`` finds it in up to five
                dimensions, of which some overlap.
        """
        check_whole("steps", steps, 1)
        check_apart(self.guide)
        started = time.perf_counter()
        trainer = self._trainer
        if trainer is None:
            history = self.history.select(*self.kept)
            trainer = trainer_of_guide(self.guide, self._known_target(), self.settings, history)
            trainer.gradient_evaluations = self._gradient_evaluations
            trainer.batched_evaluations = self.batched_evaluations
        self.stopped = trainer.run(with_progress(callbacks, progress), steps)
        self._trainer, self.history, self.settings = trainer, trainer.history, trainer.settings
        self._gradient_evaluations = trainer.gradient_evaluations
        self._batched_evaluations = trainer.batched_evaluations
        with late_errors(trainer):
            guide, self.restarts = outcome(trainer)
        self.guide = guide.requires_grad_(False).eval()
        self.wall_time += time.perf_counter() - started
        self._diagnostics = self._missed = self._verified = None
        self._warned, self.verification = False, None
        self._diagnose_together(trainer.ranks)
        return self

    def nuts(
        self,
        *,
        draws: int = 1000,
        warmup: int = 500,
        chains: int = 4,
        seed: int | None = None,
        target_accept: float = 0.8,
        max_tree_depth: int = 10,
        progress: bool | None = None,
        n_jobs: int = 1,
    ) -> MCMCRun:
        """Exact draws: NUTS in the base space of the guide, mapped back.

        The guide straightens the target out, so that chains move where plain NUTS diverges or
        crawls, as in funnels; and what the guide gets wrong, the sampler puts right. Compare with
        ``nuts(fit.target)``. A guide that misses a mode may keep the chains from it too.

        Args:
            draws: draws kept of each chain.
            warmup: steps before them, in which step size and mass are adapted.
            chains: number of chains, started from draws of the base.
            seed: fixes everything; default that of the fit.
            target_accept: as for :func:`nfvi.nuts`.
            max_tree_depth: as for :func:`nfvi.nuts`.
            progress: as for :func:`nfvi.nuts`.
            n_jobs: as for :func:`nfvi.nuts`.

        Returns:
            The draws with their diagnostics, on the space of the target.

        Raises:
            FitError: the fit was loaded without its target, or its guide is a mixture.

        Reference:
            Hoffman, Sountsov, Dillon, Langmore, Tran and Vasudevan, NeuTra-lizing bad geometry in
            Hamiltonian Monte Carlo using neural transport, 2019.
        """
        check_whole("chains", chains, 1)
        guide = single_flow(self.guide)
        seed = self.seed if seed is None else seed
        start = self._stream(seed)
        return nuts_in_base_space(
            guide,
            self._known_target(),
            draws=draws,
            warmup=warmup,
            chains=chains,
            seed=seed,
            init=guide.base_sample(chains, generator=start),
            target_accept=target_accept,
            max_tree_depth=max_tree_depth,
            progress=progress,
            n_jobs=n_jobs,
        )

    def verify(
        self,
        *,
        chains: int | None = None,
        seed: int | None = None,
        budget: float | None = None,
        progress: bool | None = None,
        distribute: bool = False,
    ) -> Verification:
        """Lower bounds on the error of every mean, sd and tail, by short HMC chains.

        Each chain starts from a draw of the guide and moves towards the target, in the base space
        of the guide if that is a single flow; where the marginals move by more than chance, the
        guide was wrong by at least as much. It does not pass where k-hat is 0.7 or more either.
        ``print(fit.verify())`` shows it site by site.

        Args:
            chains: how many, run as one batch for each component of a mixture; default 2 000, or
                fewer for a target of over 50 000 rows, all of which every step takes. At least
                100, and twice the dimension up to 300.
            seed: fixes everything; default that of the fit.
            budget: seconds after which no further iteration of the chains begins; the bounds
                hold, but the chains may not have settled. Default none.
            progress: whether to show a progress bar; default in a terminal or notebook only.
            distribute: as for :meth:`search`.

        Raises:
            FitError: the fit was loaded without its target, or few of its draws have a finite
                log-density.
            ValueError: ``chains`` are fewer than that; or as for :meth:`search`.

        Reference:
            Wang, Kasprzak and Huggins, A targeted accuracy diagnostic for variational
            approximations, 2023.
        """
        least = max(100, 2 * self.dim) if self.dim <= DENSE_LIMIT else 100
        if chains is None:
            chains = max(affordable(self._known_target(), CHAINS, 0.1), least)
        check_whole("chains", chains, least)
        generator = self._stream(self.seed if seed is None else seed)
        if budget is not None:
            check_positive("budget", budget)
        end = math.inf if budget is None else time.perf_counter() + budget
        check_flag("distribute", distribute)
        target, khat = self._known_target(), self.khat
        traced, guide = bool(self.settings.get("compile", True)), self.guide

        def work() -> Verification:
            late = lambda: time.perf_counter() > end  # noqa: E731
            with graphs(traced, budget), counted(progress, MOST_ITERATIONS, "verify") as each:
                return verify_guide(guide, target, chains, generator, khat, late, each)

        ranks = Ranks("draws" if distribute else False)
        found = Crew(ranks, target, guide.device, traced, budget).share(work)
        self._verified, self.verification = found.passed, found
        return found

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        compare: MCMCRun | ComparedLike | None = None,
        tracker: GradientTracker | None = None,
        shell: bool = False,
    ) -> None:
        """Write all that is known of the fit to one HTML file.

        The file loads nothing from elsewhere. It has the verdict and what that rests on, a summary,
        marginals, the course of the fit, weights, the search for missed mass, settings and
        versions; and the rungs of a climb, ``verify()``, gradients and chains where there are any.

        Args:
            path: the file; its folder must exist.
            compare: chains of the same target, as :func:`nfvi.nuts` or :meth:`nuts` return them, or
                what :func:`nfvi.compare` made of this fit and them.
            tracker: of the gradients, as it was among ``callbacks=``.
            shell: as for :meth:`describe`.

        Raises:
            ImportError: the extra ``nfvi[plots]`` is missing.
            TargetError: the run in ``compare`` is of another dimension.
            TypeError: ``compare`` or ``tracker`` is something else.
            OSError: the file cannot be written.
        """
        check_beside(compare, tracker)
        compared = self._beside(compare) if isinstance(compare, MCMCRun) else compare
        warned, self._warned = self._warned, True  # the verdict stands on top of the report
        try:
            write_report(path, lambda: fit_report(self, self._report(shell), compared, tracker))
        finally:
            self._warned = warned

    def _beside(self, run: MCMCRun) -> Beside:
        draws = sample_in_pieces(self.guide, run.diverging.numel(), self._stream(self.seed))
        return beside(str(self.formula), draws, run)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write guide, history and quality to a safetensors file; the target is not kept.

        The file's header has the verdict too, as a word.
        """
        record = FitRecord(
            guide=self.guide,
            history=self.history,
            restarts=self.restarts,
            settings=self.settings,
            stopped=self.stopped,
            wall_time=self.wall_time,
            gradient_evaluations=self.gradient_evaluations,
            batched_evaluations=self.batched_evaluations,
            diagnostics=self.diagnostics,
            path=self.path,
            missed=self.missed,
            verified=self._verified,
            log_normalizer=self.log_normalizer,
        )
        save_fit(record, path, self.verdict.word)

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
            FitError: the file is truncated or damaged, not from nfvi, or of a newer version.
            TargetError: the target has another dimension.
        """
        record = load_fit(path, map_location)
        return cls(target=target_for(record, target), **vars(record))

    def _attributes(self) -> dict[str, Any]:
        return {**super()._attributes(), "steps": self.steps, "sampling_time": self.wall_time}

    def describe(self, *, shell: bool = False) -> str:
        """What ``print(fit)`` shows.

        Args:
            shell: whether advice names options of the command line in place of methods and
                arguments.
        """
        return describe(self._report(shell))

    def _report(self, shell: bool = False) -> FitReport:
        last = int(self.history.n_mc[-1]) if self.steps else 0
        of_rows = "rows" in self.settings
        return FitReport(
            formula=str(self.formula),
            base=self.guide.base,
            dim=self.dim,
            target=self.settings["target"],
            seed=self.seed,
            init=self.settings.get("init", "zeros"),
            rows=(self.settings["batch_size"], self.settings["rows"]) if of_rows else None,
            steps=self.steps,
            n_mc=(self.settings["n_mc"], last),
            gradient_evaluations=self.gradient_evaluations,
            batched_evaluations=self.batched_evaluations,
            wall_time=self.wall_time,
            stopped=self.stopped,
            restarts=self.restarts,
            rising=still_rises(self.history, self.restarts, rows=of_rows),
            path=self.path,
            findings=self.findings() if self.has_verdict else None,
            shell=shell,
        )

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        best = next((r.index for r in self.restarts if r.best), 0)
        elbo = self.history.elbo[:, best].tolist() if self.steps else []
        return fit_html(self._report(), elbo)

    def __repr__(self) -> str:
        name = "no target" if self.target is None else self.target.name
        return f"<Fit {str(self.formula)!r} of {name}, dim={self.dim}, steps={self.steps}>"
