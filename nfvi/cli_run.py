"""One run of ``nfvi fit``: the fit, NUTS beside it, and what is said of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

import torch
import typer

from nfvi.checks import check_whole
from nfvi.cli_files import Folder
from nfvi.cli_target import load_target
from nfvi.compare import compare
from nfvi.errors import FitError
from nfvi.fit import Fit
from nfvi.formula import Formula
from nfvi.inference import NFVI
from nfvi.mcmc import nuts
from nfvi.training.callbacks import Checkpoint

__all__ = ["Request", "failures_in_words", "run"]

ROWS_SHOWN = 30
USAGE, FAILURE, INTERRUPTED = 2, 1, 130


@dataclass(frozen=True)
class Request:
    """The arguments of ``nfvi fit``, as they were given; ``None`` where they were not."""

    target: str
    formula: str
    dim: int | None
    base: str | None
    jitter: float | None
    seed: int | None
    dtype: str | None
    device: str | None
    steps: int | None
    n_mc: int | None
    restarts: int | None
    anneal: str | None
    gradient: str | None
    lr: float | None
    checkpoint: Path | None
    resume: bool
    nuts: bool
    draws: int
    warmup: int
    chains: int
    out: Path | None
    progress: bool | None


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Turn the errors that nfvi raises on purpose into a line on stderr and an exit code.

    2 for what was asked (formula, target, numbers, files that are not there), 1 for what went wrong
    after that. Warnings become lines on stderr as well.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (ValueError, ImportError, FileNotFoundError) as error:
            _fail(error, USAGE)
        except (FitError, OSError) as error:
            _fail(error, FAILURE)


def run(request: Request) -> int:
    """Fit, sample, compare, print, write; returns the exit code.

    Ctrl-C ends the fit, or NUTS, and keeps what there is.
    """
    _check(request)
    start = _start(request)
    folder = Folder(request.out, figures=request.out is not None and _can_draw())
    with load_target(request.target) as target:
        fit = start.fit(target, **_fit_arguments(request))
        said = [str(fit), *_sites(fit, request)]
        typer.echo("\n\n".join(said))
        folder.fit(fit, None if request.resume else start, request.draws)
        code = INTERRUPTED if fit.stopped == "interrupted" else 0
        if request.nuts and code == 0:
            code = _beside(fit, request, folder, said)
    folder.text("summary.txt", "\n\n".join(said))
    if folder.written:
        typer.echo("\nwritten:\n" + "\n".join(f"  {path}" for path in folder.written))
    return code


def _beside(fit: Fit, request: Request, folder: Folder, said: list[str]) -> int:
    """NUTS on the target of the fit, and the comparison."""
    try:
        chains = nuts(
            fit.target,
            draws=request.draws,
            warmup=request.warmup,
            chains=request.chains,
            seed=fit.seed,
            dtype=fit.guide.dtype,
            device=fit.guide.device,
            progress=request.progress,
        )
    except KeyboardInterrupt:
        typer.echo("nfvi: NUTS was interrupted before it had draws; the fit is kept", err=True)
        return INTERRUPTED
    comparison = compare(fit, chains, seed=fit.seed)
    new = [str(chains), str(comparison)]
    said += new
    typer.echo("\n" + "\n\n".join(new))
    folder.comparison(chains, comparison)
    return INTERRUPTED if chains.interrupted else 0


def _start(request: Request) -> NFVI:
    if request.resume and request.checkpoint is not None:
        resumed = NFVI.resume(request.checkpoint, device=_device(request.device))
        if resumed.formula != Formula.parse(request.formula):
            raise ValueError(
                f"the checkpoint is of {str(resumed.formula)!r}, not {request.formula!r}"
            )
        return resumed
    return NFVI(
        request.formula,
        base=request.base or "normal",
        jitter=request.jitter,
        seed=request.seed,
        dtype=_dtype(request.dtype),
        device=_device(request.device),
    )


def _fit_arguments(request: Request) -> dict[str, Any]:
    return {
        "dim": request.dim,
        "steps": request.steps,
        "n_mc": request.n_mc,
        "restarts": request.restarts,
        "anneal": _fractions(request.anneal),
        "gradient": request.gradient,
        "lr": request.lr,
        "callbacks": [] if request.checkpoint is None else [Checkpoint(request.checkpoint)],
        "progress": request.progress,
    }


def _check(request: Request) -> None:
    """What can be known to be wrong before anything has run."""
    if request.resume:
        if request.checkpoint is None:
            raise ValueError("--resume needs --checkpoint PATH, the file to go on from")
        fixed = ("base", "jitter", "seed", "dtype", "gradient")
        if given := [name for name in fixed if getattr(request, name) is not None]:
            raise ValueError(f"--{given[0]} is fixed by the checkpoint; leave it out with --resume")
    for name, least in (("draws", 8), ("warmup", 0), ("chains", 1)):
        check_whole(name, getattr(request, name), least)
    Formula.parse(request.formula)


def _fractions(text: str | None) -> float | list[float] | None:
    """``0.3`` for all restarts, ``0.3,0`` for one each."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--anneal takes a fraction such as 0.3, or one for each restart as in 0.3,0; got"
            f" {text!r}"
        ) from error
    return values[0] if len(values) == 1 else values


def _dtype(text: str | None) -> torch.dtype | None:
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if text is not None and text not in dtypes:
        raise ValueError(f"--dtype takes {' or '.join(dtypes)}, got {text!r}")
    return None if text is None else dtypes[text]


def _device(text: str | None) -> torch.device | None:
    if text is None:
        return None
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise ValueError(
            f"--device {text!r} is none that torch knows: cpu, cuda, cuda:1"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here")
    return device


def _can_draw() -> bool:
    try:
        import nfvi.plots  # noqa: F401
    except ImportError as error:
        typer.echo(f"nfvi: no figures, since {error}", err=True)
        return False
    return True


def _sites(fit: Fit, request: Request) -> list[str]:
    """The table of a model's sites, where no comparison will show it."""
    if request.nuts or fit.target is None or not fit.target.named:
        return []
    lines = fit.summary().splitlines()
    more = len(lines) - 1 - ROWS_SHOWN
    return ["\n".join(lines[: ROWS_SHOWN + 1]) + (f"\n... and {more} more" if more > 0 else "")]


def _fail(error: BaseException, code: int) -> NoReturn:
    typer.echo(f"nfvi: {error}", err=True)
    raise typer.Exit(code) from error


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"nfvi: {message}", err=True)
