"""One run of ``nfvi fit``: the fit, NUTS beside it, and what is said of them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from nfvi.assess import Comparison, compare
from nfvi.auto import AUTO
from nfvi.cli.failures import exit_code
from nfvi.cli.files import Folder
from nfvi.cli.folders import results_folder
from nfvi.cli.target import load_target, sent_whole
from nfvi.cli.values import check_word, device_of, fractions, number_or_auto, start_of
from nfvi.fit import Fit, summary_lines
from nfvi.formula import Formula
from nfvi.inference import NFVI, WORDS, is_auto
from nfvi.mcmc import nuts
from nfvi.targets import Target, takes_one_argument
from nfvi.training import Checkpoint, GradientTracker
from nfvi.utils import check_whole, jobs_for

__all__ = ["Request", "run"]

ROWS_SHOWN = 30
TRACKED = 25
"""Steps between records of the gradients: 200 points of a picture in a fit of 5 000."""
CHOSEN = ("base", "jitter", "init", "steps", "n_mc", "restarts", "anneal", "gradient", "lr")
"""What the formula auto chooses by itself."""


@dataclass(frozen=True)
class Request:
    """The arguments of ``nfvi fit``, as they were given; ``None`` where they were not."""

    target: str
    formula: str | None
    dim: int | None
    base: str | None
    jitter: float | None
    seed: int | None
    dtype: str | None
    device: str | None
    init: str | None
    steps: str | None
    n_mc: str | None
    restarts: int | None
    anneal: str | None
    gradient: str | None
    lr: str | None
    budget: float | None
    checkpoint: Path | None
    resume: bool
    nuts: bool
    verify: bool
    draws: int
    warmup: int
    chains: int
    jobs: int
    weighted: bool
    out: Path | None
    progress: bool | None


def run(request: Request) -> int:
    """Fit, sample, compare, print, write; returns the exit code.

    The last line is the verdict on the fit, for scripts.
    Ctrl-C ends the fit, or NUTS, and keeps what there is.
    """
    _check(request)
    start, arguments = _start(request), _fit_arguments(request)
    with results_folder(request.out) as out, load_target(request.target) as target:
        _refuse_without_dim(request, target)
        folder = Folder(out)
        tracker = _tracker(request)
        callbacks = [*arguments.pop("callbacks"), *([] if tracker is None else [tracker])]
        fit = start.fit(target, callbacks=callbacks, **arguments)
        verified = [str(fit.verify(progress=request.progress))] if request.verify else []
        said = [fit.describe(shell=True), *_sites(fit, request), *verified]
        typer.echo("\n\n".join(said))
        verdict = f"Verdict: {fit.verdict.word}."
        start_shown = None if request.resume else start
        folder.fit(fit, start_shown, request.draws, weighted=request.weighted)
        code, comparison = exit_code(fit.stopped == "interrupted"), None
        if request.nuts and code == 0:
            code, comparison = _beside(fit, request, folder, said)
        folder.report(partial(fit.report, compare=comparison, tracker=tracker, shell=True))
        folder.end("\n\n".join(said), request.out)
    typer.echo(f"\n{verdict}")
    return code


def _tracker(request: Request) -> GradientTracker | None:
    """For the report, which the fit of a formula leaves with its gradients flow by flow."""
    named = request.formula is not None and not is_auto(request.formula)
    # A tracker that was not there from the first step cannot be resumed with.
    kept = named and request.out is not None and not request.resume
    return GradientTracker(every=TRACKED) if kept else None


def _beside(
    fit: Fit, request: Request, folder: Folder, said: list[str]
) -> tuple[int, Comparison | None]:
    """NUTS on the target of the fit, and the comparison; with the exit code."""
    try:
        with sent_whole() if request.jobs != 1 else nullcontext():
            chains = nuts(
                fit.target,
                draws=request.draws,
                warmup=request.warmup,
                chains=request.chains,
                seed=fit.seed,
                dtype=fit.guide.dtype,
                device=fit.guide.device,
                progress=request.progress,
                n_jobs=request.jobs,
            )
    except KeyboardInterrupt:
        typer.echo("nfvi: NUTS was interrupted before it had draws; the fit is kept", err=True)
        return exit_code(interrupted=True), None
    comparison = compare(fit, chains, seed=fit.seed)
    new = [chains.describe(shell=True), str(comparison)]
    said += new
    typer.echo("\n" + "\n\n".join(new))
    folder.comparison(chains, comparison)
    return exit_code(chains.interrupted), comparison


def _start(request: Request) -> NFVI:
    if request.resume and request.checkpoint is not None:
        resumed = NFVI.resume(request.checkpoint, device=device_of(request.device))
        if request.formula and resumed.formula != Formula.parse(request.formula):
            raise ValueError(
                f"the checkpoint is of {str(resumed.formula)!r}, not {request.formula!r}"
            )
        return resumed
    return start_of(
        request.formula or AUTO,
        base=request.base,
        jitter=request.jitter,
        seed=request.seed,
        dtype=request.dtype,
        device=request.device,
    )


def _fit_arguments(request: Request) -> dict[str, Any]:
    kept = request.checkpoint
    return {
        "dim": request.dim,
        "init": request.init,
        "steps": number_or_auto("steps", request.steps, int),
        "n_mc": number_or_auto("n-mc", request.n_mc, int),
        "restarts": request.restarts,
        "anneal": fractions(request.anneal),
        "gradient": request.gradient,
        "lr": number_or_auto("lr", request.lr, float),
        "budget": request.budget,
        "callbacks": [] if kept is None else [Checkpoint(kept.absolute())],
        "progress": request.progress,
    }


def _check(request: Request) -> None:
    """What can be known to be wrong before anything has run."""
    if request.resume:
        if request.checkpoint is None:
            raise ValueError("--resume needs --checkpoint PATH, the file to go on from")
        if request.formula and is_auto(request.formula):
            raise ValueError("--resume continues with a formula; auto keeps no checkpoint")
        fixed = ("base", "jitter", "seed", "dtype", "gradient")
        if given := [name for name in fixed if getattr(request, name) is not None]:
            raise ValueError(f"--{given[0]} is fixed by the checkpoint; leave it out with --resume")
    check_word("init", request.init, WORDS)
    if request.budget is not None and not 0 < request.budget < math.inf:
        raise ValueError(f"--budget takes seconds over 0, got {request.budget:g}")
    for name, least in (("draws", 8), ("warmup", 0), ("chains", 1)):
        check_whole(name, getattr(request, name), least)
    _check_jobs(request)
    if request.weighted and request.out is None:
        raise ValueError("--weighted is of the draws that are written; it needs --out DIR")
    if request.formula and not is_auto(request.formula):
        Formula.parse(request.formula)
    elif not request.resume:
        _check_auto(request)
        return
    if request.budget is not None:
        raise ValueError("--budget is for the formula auto; use --steps with a formula")


def _check_jobs(request: Request) -> None:
    """Refuse a number of processes that cannot be, or that nothing would use."""
    if request.jobs == 1:
        return
    if request.jobs < -1 or request.jobs == 0:
        raise ValueError(
            f"--jobs takes a number of processes, or -1 for one on each CPU, got {request.jobs}"
        )
    if not request.nuts:
        raise ValueError("--jobs is for the chains of NUTS; it needs --nuts")
    jobs_for(-1, request.chains)  # says what to install where it is missing


def _check_auto(request: Request) -> None:
    """Refuse what the formula auto chooses by itself."""
    if given := [name for name in CHOSEN if getattr(request, name) is not None]:
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option} is chosen by auto: leave it out, or name a formula")
    if request.checkpoint is not None:
        raise ValueError("auto makes several fits and keeps no checkpoint: leave --checkpoint out")


def _refuse_without_dim(request: Request, target: Any) -> None:
    """Say in the words of a shell what is missing of a log-density."""
    if request.dim is None and not isinstance(target, Target) and takes_one_argument(target):
        raise ValueError(
            f"{request.target} takes an argument, so it looks like a log-density: say how many"
            " coordinates it has, --dim 2, or name its parameters beside it, PARAMETERS ="
            f" {{{request.target.rpartition(':')[2]!r}: {{'tau': 'positive'}}}}"
        )


def _sites(fit: Fit, request: Request) -> list[str]:
    """The table of a model's sites, where no comparison will show it."""
    if request.nuts or fit.target is None or not fit.target.named:
        return []
    return [summary_lines(fit.summary(), ROWS_SHOWN)]
