"""Simulation-based calibration: whether a formula finds the posterior of data a model makes."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfvi.assess.calibration_run import outcomes
from nfvi.assess.calibration_task import Outcome, Task
from nfvi.assess.calibration_text import CalibrationFacts, calibration_html, calibration_text
from nfvi.assess.rank_checks import LEVEL, RankCheck, check_ranks, rank_columns
from nfvi.assess.uniformity import Counts, band, bin_band
from nfvi.errors import FitError, FormulaError, TargetError
from nfvi.fit import VerdictWord
from nfvi.formula import Formula
from nfvi.guides import Base
from nfvi.inference import NFVI, WORDS, FitArguments, is_auto, target_trainer
from nfvi.starts import StartName
from nfvi.targets import PyroTarget, Target, check_simulable
from nfvi.training import Anneal
from nfvi.utils import check_flag, check_whole, jobs_for, progress_bar, progress_wanted

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The ranks of true values among draws of fits; ``print`` shows what they say.

    Attributes:
        ranks: site -> (simulations done, \\*event): how many of the draws are below the true value,
            from 0 to ``draws``; uniform if the fits are the posterior.
        draws: L, draws of each fit.
        constant: site -> (\\*event), scalars that never vary; they are not checked.
        indices: the numbers of the simulations in ``ranks``.
        failures: the numbers of those whose fit failed, with the reason.
        verdicts: word -> how many of the fits in ``ranks`` had that verdict, by their diagnostics
            alone: no search was made for mass that they miss.
        simulations: how many were asked for.
        formula: of the fits.
        name: of the model.
        weighted: whether draws were importance-resampled.
        seed: repeats the calibration.
        wall_time: seconds.
    """

    ranks: dict[str, Tensor]
    draws: int
    constant: dict[str, Tensor]
    indices: tuple[int, ...]
    failures: dict[int, str]
    verdicts: dict[VerdictWord, int]
    simulations: int
    formula: str
    name: str
    weighted: bool
    seed: int
    wall_time: float

    @cached_property
    def checks(self) -> tuple[RankCheck, ...]:
        """One for every scalar of every latent site."""
        return check_ranks(self.ranks, self.draws, self.constant)

    @property
    def columns(self) -> dict[str, Counts]:
        """The ranks of every scalar that varies, by its name: each (simulations)."""
        names, columns = rank_columns(self.ranks, self.constant)
        return dict(zip(names, columns.T, strict=True))

    def ecdf_band(self) -> tuple[Counts, Counts]:
        """The least and the most ranks below 1, ..., L that the test of each scalar accepts.

        Each (L). Uniform ranks of all scalars leave it with a chance of 1 %, that of the test.
        """
        return band(len(self.indices), self.draws, LEVEL / len(self.checks))

    def bin_band(self, shares: NDArray[np.float64]) -> tuple[Counts, Counts]:
        """The least and the most of uniform ranks in bins of given shares: each (bins).

        Each bin alone leaves it with a chance of 1 %.
        """
        return bin_band(len(self.indices), shares, LEVEL)

    @property
    def passed(self) -> bool:
        """Whether no departure from uniform ranks is proven, and no fit failed."""
        return not self.failures and all(check.passed for check in self.checks)

    def _facts(self) -> CalibrationFacts:
        return CalibrationFacts(
            formula=self.formula,
            name=self.name,
            simulations=self.simulations,
            done=len(self.indices),
            failures=self.failures,
            verdicts=self.verdicts,
            draws=self.draws,
            weighted=self.weighted,
            checks=self.checks,
            seed=self.seed,
            wall_time=self.wall_time,
        )

    def __str__(self) -> str:
        return calibration_text(self._facts())

    def _repr_html_(self) -> str:
        return calibration_html(self._facts())

    def __repr__(self) -> str:
        done = f"{len(self.indices)} of {self.simulations} simulations"
        return f"<Calibration of {self.formula!r} on {self.name}, {done}>"

    def plot(self, kind: Literal["ecdf", "histogram"] = "ecdf") -> Any:
        """The ranks of each scalar; see :func:`nfvi.plots.ranks`."""
        from nfvi.plots import ranks

        return ranks(self, kind=kind)


def calibrate(
    model: Callable[..., Any] | PyroTarget,
    formula: str | Formula,
    *args: Any,
    simulations: int = 200,
    draws: int = 99,
    weighted: bool = False,
    base: str | Base = "normal",
    dtype: torch.dtype | None = None,
    init: StartName | Literal["zeros"] | None = None,
    steps: int | Literal["auto"] | None = None,
    n_mc: int | Literal["auto"] | None = None,
    restarts: int | None = None,
    combine: Literal["best", "mixture"] | None = None,
    anneal: Anneal = None,
    gradient: Literal["path", "total"] | None = None,
    lr: float | Literal["auto"] | None = None,
    n_jobs: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
    processes: int | None = None,
) -> Calibration:
    """Check a formula on data of which the truth is known: simulation-based calibration.

    Each simulation draws latent sites from the model's prior and data given them, fits the formula
    to the model with these data, and ranks the true value of each scalar among draws of the fit.
    If fits are the posterior, ranks are uniform on 0, ..., L. ∪-shaped ranks are those of fits that
    are too narrow, ∩-shaped ones of fits that are too wide, and slanted ones of fits that are off
    to one side.

    Each fit has a verdict too, and the text counts them. A search for missed mass may cost more
    than the fit, so that these verdicts rest on draws of the fit alone: they cannot see a mode that
    it misses.

    Args:
        model: a Pyro model, which needs no changes: what it observes, ``pyro.sample(..., obs=)``,
            is simulated. Data that it uses elsewhere, as covariates, stay as they are. Or a
            :class:`~nfvi.PyroTarget`, for a model with keyword arguments.
        formula: as for :class:`~nfvi.NFVI`.
        args: the arguments of the model, its data among them.
        simulations: N, data sets to simulate and fit.
        draws: L, draws of each fit.
        weighted: whether to take importance-resampled draws, to check what is used after
            :meth:`~nfvi.Fit.importance_resample`; default raw ones.
        base: as for :class:`~nfvi.NFVI`.
        dtype: as for :class:`~nfvi.NFVI`.
        init: as for :meth:`nfvi.NFVI.fit`, as the next ones are: where each fit starts; not a
            point, as each has other data.
        steps: of each fit.
        n_mc: draws a step.
        restarts: of each fit.
        combine: of each fit.
        anneal: of each fit.
        gradient: of each fit.
        lr: of each fit.
        n_jobs: simulations at a time, each in a process of its own with one thread, by joblib (the
            extra ``jobs``); -1 for one on each CPU. Under ``joblib.parallel_config``, as with
            ``backend="dask"``, they run where that says. Default what that says, else -1, and 1
            where joblib is not installed. The results do not depend on it.
        seed: fixes everything; simulation i is the same whatever ``simulations`` is.
        progress: whether to show a progress bar; default in a terminal or notebook only.
        processes: deprecated name of ``n_jobs``.

    Returns:
        The ranks with their tests; after Ctrl-C, of the simulations that were done.

    Raises:
        TargetError: the model cannot be simulated from (improper priors, ``pyro.factor``,
            subsampling or scaled log-densities, nothing observed), or not be sent to other
            processes.
        ImportError: ``n_jobs`` is over 1, or -1, and joblib is not installed.
        FormulaError: the formula cannot be read, or not have the model's dimension.
        ValueError: an argument is out of range; nothing has been run then.
        FitError: every fit failed.

    Reference:
        Talts, Betancourt, Simpson, Vehtari and Gelman, Validating Bayesian inference algorithms
        with simulation-based calibration, 2018. Säilynoja, Bürkner and Vehtari, Graphical test for
        discrete uniformity and its applications, 2022, for the test.
    """
    started = time.perf_counter()
    check_whole("simulations", simulations, 1)
    check_whole("draws", draws, 1)
    if init is not None and not (isinstance(init, str) and init in WORDS):
        raise ValueError(f"init must be one of {', '.join(map(repr, WORDS))}, got {init!r}")
    number = jobs_for(_n_jobs(n_jobs, processes), simulations)
    if seed is not None:
        check_whole("seed", seed, 0, 2**63 - 1)
    check_flag("weighted", weighted)
    if is_auto(formula):
        raise FormulaError(
            'NFVI("auto") finds a formula for one target, and calibrate checks a formula on many:'
            " name one, such as that of a fit, str(fit.formula)"
        )
    settings: dict[str, Any] = {"formula": Formula.parse(formula), "base": base, "dtype": dtype}
    start = NFVI(**settings)
    target = _target_of(model, args)
    check_simulable(target)
    options: dict[str, Any] = {"init": init, "steps": steps, "n_mc": n_mc, "restarts": restarts}
    options |= {"combine": combine, "anneal": anneal, "gradient": gradient, "lr": lr}
    _check_options(start, target, options)
    seed = torch.Generator(device="cpu").seed() >> 1 if seed is None else seed
    task = Task.of(target, settings, options, draws, weighted, seed)
    done = _collected(task, target, simulations, number, progress)
    failures = {outcome.index: outcome.failure for outcome in done if outcome.failure}
    good = [outcome for outcome in done if not outcome.failure]
    if not done:
        raise KeyboardInterrupt
    if not good:
        raise FitError(f"all of {len(done)} fits failed, the first with: {done[0].failure}")
    return Calibration(
        ranks={site: _stack([o.ranks[site] for o in good]) for site in target.sites},
        draws=draws,
        constant={site: _stack([o.constant[site] for o in good]).all(0) for site in target.sites},
        indices=tuple(outcome.index for outcome in good),
        failures=failures,
        verdicts=_verdicts(good),
        simulations=simulations,
        formula=str(settings["formula"]),
        name=target.name,
        weighted=weighted,
        seed=seed,
        wall_time=time.perf_counter() - started,
    )


def _n_jobs(n_jobs: int | None, processes: int | None) -> int | None:
    """The number of processes asked for, by its name or by that of earlier versions."""
    if processes is None:
        return n_jobs
    if n_jobs is not None:
        raise ValueError(f"n_jobs={n_jobs} and processes={processes} mean the same: pass n_jobs=")
    warnings.warn("processes= is called n_jobs= now", DeprecationWarning, stacklevel=3)
    return processes


def _check_options(start: NFVI, target: PyroTarget, options: dict[str, Any]) -> None:
    """Prepare a fit to the user's own data, without what ``"auto"`` and ``init=`` would run."""
    searched = isinstance(options["lr"], str) and options["lr"] == "auto"
    given = {**options, "init": None, "lr": None if searched else options["lr"]}
    target_trainer(start.spec, target, FitArguments(**given))


def _target_of(model: Any, args: tuple[Any, ...]) -> PyroTarget:
    if isinstance(model, PyroTarget) and args:
        raise TargetError(f"{model.name!r} is a target already and takes no model arguments")
    if isinstance(model, PyroTarget):
        return model
    if isinstance(model, Target) or not callable(model):
        raise TargetError(
            f"calibrate needs a Pyro model, to draw data from; got {type(model).__name__}"
        )
    return PyroTarget(model, *args)


def _collected(
    task: Task, target: PyroTarget, simulations: int, processes: int, progress: bool | None
) -> list[Outcome]:
    """The outcomes in the order of their numbers."""
    wanted = progress_wanted(progress)
    found = []
    with (
        progress_bar(simulations, "calibrate") if wanted else nullcontext() as bar,
        closing(outcomes(task, target, simulations, processes)) as coming,
    ):
        for outcome in coming:
            found.append(outcome)
            if bar is not None:
                bar.update()
    return sorted(found, key=lambda outcome: outcome.index)


def _verdicts(done: list[Outcome]) -> dict[VerdictWord, int]:
    """How many of the fits had each verdict, the best one first."""
    given = Counter(outcome.verdict for outcome in done)
    return {word: given[word] for word in get_args(VerdictWord)}


def _stack(arrays: list[Any]) -> Tensor:
    return torch.as_tensor(np.stack(arrays))
