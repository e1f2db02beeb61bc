"""``nfvi fit-data``: a density of the rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfvi.cli.files import Folder
from nfvi.cli.folders import results_folder
from nfvi.cli.options import INTERRUPTED, can_draw, device_of, dtype_of, failures_in_words
from nfvi.cli.table import read_rows
from nfvi.density import (
    BATCH_SIZE,
    DATA_LEARNING_RATE,
    DATA_STEPS,
    LEAST_EPOCHS,
)
from nfvi.formula import Formula
from nfvi.inference import NFVI

__all__ = ["fit_data"]

DATA, GUIDE, FITTING, RESULT = "The data", "The guide", "The fit", "Results"


def fit_data(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Rows of numbers: a CSV file, with or without names in its first line, or an "
            "array that NumPy saved, .npy.",
            show_default=False,
        ),
    ],
    formula: Annotated[
        str,
        typer.Argument(metavar="FORMULA", help="The flows, first one next to the base: maf*5."),
    ] = "maf*5",
    *,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Which columns to fit, by name or counted from 0. Default: all but the context.",
            rich_help_panel=DATA,
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="C", help="Columns that the density depends on.", rich_help_panel=DATA
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Fraction of the rows to hold out.", rich_help_panel=DATA)
    ] = 0.1,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base distribution: normal, laplace, studentt(df=5). Default: normal.",
            rich_help_panel=GUIDE,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Fixes everything random. Default: a new one.", rich_help_panel=GUIDE),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float32|float64", help="Default: float32.", rich_help_panel=GUIDE),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cpu.", rich_help_panel=GUIDE)
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help=f"How often each row is seen. Default: as many as make {DATA_STEPS} steps, "
            f"at least {LEAST_EPOCHS}.",
            rich_help_panel=FITTING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help=f"Rows a step. Default: {BATCH_SIZE}.", rich_help_panel=FITTING),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help=f"Highest learning rate. Default: {DATA_LEARNING_RATE}.", rich_help_panel=FITTING
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Leave the fit, the score of each row and figures here. Default: only print.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option(help="Show a progress bar. Default: in a terminal.", rich_help_panel=RESULT),
    ] = None,
) -> None:
    """Fit a density to data by maximum likelihood, and say how good it is.

    Example: nfvi fit-data data.csv "maf*5" --columns a,b --context c --out out/
    """
    with failures_in_words(), results_folder(out) as results:
        start = NFVI(
            Formula.parse(formula),
            base=base or "normal",
            seed=seed,
            dtype=dtype_of(dtype),
            device=device_of(device),
        )
        rows, given = read_rows(data, columns, context)
        folder = Folder(results, figures=out is not None and can_draw())
        fit = start.fit_data(
            rows,
            context=given,
            validation=validation,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            progress=progress,
        )
        typer.echo(str(fit))
        folder.density(fit, rows, given)
        folder.text("summary.txt", str(fit))
        if out is not None:
            written = [f"  {out / path.name}" for path in folder.written]
            typer.echo("\n".join(["\nwritten:", *written]))
    raise typer.Exit(INTERRUPTED if fit.stopped == "interrupted" else 0)
