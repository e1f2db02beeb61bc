"""The command line: ``nfvi fit``, ``nfvi fit-data`` and ``nfvi flows``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfvi._version import __version__
from nfvi.cli.data import fit_data
from nfvi.cli.options import failures_in_words
from nfvi.cli.run import Request, run
from nfvi.flows import lookup, names
from nfvi.starts import STARTS
from nfvi.training import ANNEAL, N_MC, RESTARTS, STEPS
from nfvi.utils import align

__all__ = ["app"]

app = typer.Typer(
    name="nfvi",
    help="Variational inference with normalizing flows: a formula, a target, an honest fit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

FAST = {"both": "both", "sampling": "sampling, z to x", "density": "density, x to z"}
GUIDE, FITTING, NUTS, RESULT = "The guide", "The fit", "NUTS beside it", "Results"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nfvi {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Variational inference with normalizing flows: a formula, a target, an honest fit."""


@app.command()
def flows() -> None:
    """List the flows that a formula can name."""
    rows = []
    for spec in (lookup(name) for name in names() if lookup(name).name == name):
        options = ", ".join(map(str, spec.options.values()))
        cells = [spec.name, spec.help, options, FAST[spec.cls.fast], ", ".join(spec.aliases)]
        rows.append([cell or "-" for cell in cells])
    header = ["name", "map", "options", "closed form", "other names"]
    typer.echo(align(header, rows, left=len(header)))


@app.command()
def fit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="What to fit: path/to/file.py:name or package.module:name. A Target, a function "
            "log p(z) with --dim, or a Pyro model without arguments.",
            show_default=False,
        ),
    ],
    formula: Annotated[
        str,
        typer.Argument(
            metavar="FORMULA",
            help="The flows, first one next to the base: planar*8. auto finds one.",
        ),
    ] = "scale-loc",
    *,
    dim: Annotated[
        int | None,
        typer.Option(help="Dimension of a bare function log p(z).", rich_help_panel=GUIDE),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base distribution: normal, laplace, studentt(df=5). Default: normal.",
            rich_help_panel=GUIDE,
        ),
    ] = None,
    jitter: Annotated[
        float | None,
        typer.Option(
            help="Sd of the random start around the identity. Default: each flow's own.",
            rich_help_panel=GUIDE,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Fixes everything random. Default: a new one.", rich_help_panel=GUIDE),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float32|float64",
            help="Default: that of the target, else float32.",
            rich_help_panel=GUIDE,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cpu.", rich_help_panel=GUIDE)
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="|".join((*STARTS, "zeros")),
            help="Gaussian that is fitted first and placed behind the flows. Default: none.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="INT|auto", help=f"Optimiser steps. Default: {STEPS}.", rich_help_panel=FITTING
        ),
    ] = None,
    n_mc: Annotated[
        str | None,
        typer.Option(
            "--n-mc",
            metavar="INT|auto",
            help=f"Draws a step for each restart. Default: {N_MC[0]}, or {N_MC[1]} above 10 "
            "dimensions.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(
            help=f"Fits side by side, of which the best is kept. Default: {RESTARTS[0]}, or "
            f"{RESTARTS[1]} above 10 dimensions; 1 where they cost much.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    anneal: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION|adaptive",
            help="Part of the steps in which tempering rises to 1: one number, or one for each "
            f"restart with commas. Default: {ANNEAL} for three restarts in four.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(
            metavar="path|total",
            help="Gradient of the ELBO. Default: path, or total for splines.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="FLOAT|auto",
            help="Highest learning rate. Default: 0.02, or 0.005 with coupling flows, maf or iaf.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="With auto: end after so long, with the best so far. Default: no limit.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Keep the state of the fit in this file.", rich_help_panel=FITTING
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from --checkpoint PATH.", rich_help_panel=FITTING),
    ] = False,
    nuts: Annotated[
        bool,
        typer.Option("--nuts", help="Run NUTS on the same target, compare.", rich_help_panel=NUTS),
    ] = False,
    warmup: Annotated[
        int, typer.Option(help="Steps of adaptation in each chain.", rich_help_panel=NUTS)
    ] = 1000,
    chains: Annotated[int, typer.Option(help="Number of chains.", rich_help_panel=NUTS)] = 4,
    draws: Annotated[
        int,
        typer.Option(
            help="Draws of the fit to write, and draws of each chain.", rich_help_panel=RESULT
        ),
    ] = 1000,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Leave the fit, its draws, summary, tables and figures here. Default: only print.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option(help="Show a progress bar. Default: in a terminal.", rich_help_panel=RESULT),
    ] = None,
) -> None:
    """Fit a formula to a target, and say how good the fit is.

    Example: nfvi fit models/potentials.py:pot1 "planar*8" --nuts --out out/
    """
    request = Request(
        target=target, formula=formula, dim=dim, base=base, jitter=jitter, seed=seed,
        dtype=dtype, device=device, init=init, steps=steps, n_mc=n_mc, restarts=restarts,
        anneal=anneal, gradient=gradient, lr=lr, budget=budget, checkpoint=checkpoint,
        resume=resume, nuts=nuts, draws=draws, warmup=warmup, chains=chains, out=out,
        progress=progress,
    )  # fmt: skip
    with failures_in_words():
        code = run(request)
    raise typer.Exit(code)


app.command("fit-data")(fit_data)
