"""``nfvi fit``: a formula fitted to a target."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nfvi.cli.failures import failures_in_words
from nfvi.cli.options import (
    Base,
    Device,
    Progress,
    Seed,
    Trace,
    dtype_option,
    fitting_option,
    guide_option,
    out_option,
    result_option,
)
from nfvi.cli.run import Request, run
from nfvi.starts import STARTS
from nfvi.training import ANNEAL, N_MC, RESTARTS, STEPS

__all__ = ["fit"]

_beside_option = partial(typer.Option, rich_help_panel="What is held beside it")


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
        str | None,
        typer.Argument(
            metavar="FORMULA",
            help="The flows, first one next to the base: planar*8. auto finds one.",
            show_default="auto",
        ),
    ] = None,
    *,
    dim: Annotated[
        int | None,
        guide_option(help="Dimension of a bare function log p(z)."),
    ] = None,
    base: Base = None,
    jitter: Annotated[
        float | None,
        guide_option(help="Sd of the random start around the identity. Default: each flow's own."),
    ] = None,
    seed: Seed = None,
    dtype: Annotated[
        str | None,
        dtype_option(help="Default: that of the target, else float32."),
    ] = None,
    device: Device = None,
    init: Annotated[
        str | None,
        fitting_option(
            metavar="|".join((*STARTS, "zeros")),
            help="Gaussian that is fitted first and placed behind the flows. Default: none.",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        fitting_option(
            metavar="INT|auto",
            help=f"Optimiser steps. Default: {STEPS[0]}, or {STEPS[1]} with coupling flows, maf or "
            "iaf.",
        ),
    ] = None,
    n_mc: Annotated[
        str | None,
        fitting_option(
            "--n-mc",
            metavar="INT|auto",
            help=f"Draws a step for each restart. Default: {N_MC[0]}, or {N_MC[1]} above 10 "
            "dimensions.",
        ),
    ] = None,
    restarts: Annotated[
        int | None,
        fitting_option(
            help=f"Fits side by side, of which the best is kept. Default: {RESTARTS[0]}, or "
            f"{RESTARTS[1]} above 10 dimensions; 1 where they cost much."
        ),
    ] = None,
    anneal: Annotated[
        str | None,
        fitting_option(
            metavar="FRACTION|adaptive",
            help="Part of the steps in which tempering rises to 1: one number, or one for each "
            f"restart with commas. Default: {ANNEAL[0]}, or {ANNEAL[1]} with coupling flows, maf "
            "or iaf, for three restarts in four.",
        ),
    ] = None,
    gradient: Annotated[
        str | None,
        fitting_option(
            metavar="path|total", help="Gradient of the ELBO. Default: path, or total for splines."
        ),
    ] = None,
    lr: Annotated[
        str | None,
        fitting_option(
            metavar="FLOAT|auto",
            help="Highest learning rate. Default: 0.02, or 0.005 with coupling flows, maf or iaf.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        fitting_option(
            metavar="SECONDS",
            help="With auto: end after so long, with the best so far. Default: no limit.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        fitting_option(metavar="PATH", help="Keep the state of the fit in this file."),
    ] = None,
    resume: Annotated[
        bool,
        fitting_option("--resume", help="Go on from --checkpoint PATH."),
    ] = False,
    nuts: Annotated[
        bool,
        _beside_option("--nuts", help="Run NUTS on the same target, compare."),
    ] = False,
    verify: Annotated[
        bool,
        _beside_option("--verify", help="Verify the fit by short HMC chains from its draws."),
    ] = False,
    warmup: Annotated[int, _beside_option(help="Steps of adaptation in each chain.")] = 1000,
    chains: Annotated[int, _beside_option(help="Number of chains.")] = 4,
    jobs: Annotated[
        int,
        _beside_option(
            help="Chains of NUTS side by side, each in a process of its own, by the extra jobs; "
            "-1 for one on each CPU. The draws are the same."
        ),
    ] = 1,
    draws: Annotated[
        int,
        result_option(help="Draws of the fit to write, and draws of each chain."),
    ] = 1000,
    weighted: Annotated[
        bool,
        result_option(
            "--weighted",
            help="Resample the draws to write by their importance weights, where the verdict "
            "is usable.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        out_option(
            help="Leave the fit, its draws, summary, tables, figures and a report here. Default: "
            "only print."
        ),
    ] = None,
    progress: Progress = None,
    trace: Trace = False,
) -> None:
    """Fit a formula to a target, and say how good the fit is.

    Example: nfvi fit models/potentials.py:pot1 "planar*8" --nuts --out out/
    """
    request = Request(
        target=target, formula=formula, dim=dim, base=base, jitter=jitter, seed=seed,
        dtype=dtype, device=device, init=init, steps=steps, n_mc=n_mc, restarts=restarts,
        anneal=anneal, gradient=gradient, lr=lr, budget=budget, checkpoint=checkpoint,
        resume=resume, nuts=nuts, verify=verify, draws=draws, warmup=warmup, chains=chains,
        jobs=jobs, weighted=weighted, out=out, progress=progress,
    )  # fmt: skip
    with failures_in_words(trace=trace):
        code = run(request)
    raise typer.Exit(code)
