"""``nfvi fit-data``: a density of the rows of a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nfvi.auto import AUTO
from nfvi.cli.failures import exit_code, failures_in_words
from nfvi.cli.files import Folder
from nfvi.cli.folders import results_folder
from nfvi.cli.options import (
    Base,
    Device,
    Progress,
    Seed,
    Trace,
    dtype_option,
    fitting_option,
    out_option,
    result_option,
)
from nfvi.cli.table import read_rows
from nfvi.cli.values import start_of
from nfvi.density import BATCH_SIZE, DATA_LEARNING_RATE, DATA_STEPS, LEAST_EPOCHS
from nfvi.formula import Formula
from nfvi.utils import check_whole

__all__ = ["fit_data"]

_data_option = partial(typer.Option, rich_help_panel="The data")


def fit_data(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Rows of numbers: a CSV file, with or without names in its first line, an array "
            "that NumPy saved, .npy, or what pandas reads of Parquet and Excel.",
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
        _data_option(
            metavar="A,B",
            help="Which columns to fit, by name or counted from 0. Default: all but the context.",
        ),
    ] = None,
    context: Annotated[
        str | None,
        _data_option(metavar="C", help="Columns that the density depends on."),
    ] = None,
    drop_missing: Annotated[
        bool,
        _data_option("--drop-missing", help="Leave out rows with an empty cell."),
    ] = False,
    decimal: Annotated[
        str | None,
        _data_option(metavar=".|,", help="What a text has before decimals. Default: found out."),
    ] = None,
    validation: Annotated[float, _data_option(help="Fraction of the rows to hold out.")] = 0.1,
    base: Base = None,
    seed: Seed = None,
    dtype: Annotated[
        str | None,
        dtype_option(help="Default: float32."),
    ] = None,
    device: Device = None,
    epochs: Annotated[
        int | None,
        fitting_option(
            help=f"How often each row is seen. Default: as many as make {DATA_STEPS} steps, "
            f"at least {LEAST_EPOCHS}."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        fitting_option(help=f"Rows a step. Default: {BATCH_SIZE}."),
    ] = None,
    lr: Annotated[
        float | None,
        fitting_option(help=f"Highest learning rate. Default: {DATA_LEARNING_RATE}."),
    ] = None,
    draws: Annotated[
        int,
        result_option(help="Draws of the fit to write, with the names of the columns."),
    ] = 1000,
    out: Annotated[
        Path | None,
        out_option(
            help="Leave the fit, the score of each row, draws, figures and a report here. "
            "Default: only print."
        ),
    ] = None,
    progress: Progress = None,
    trace: Trace = False,
) -> None:
    """Fit a density to data by maximum likelihood, and say how good it is.

    Example: nfvi fit-data data.csv "maf*5" --columns a,b --context c --out out/
    """
    with failures_in_words(trace=trace), results_folder(out) as results:
        if formula.strip().lower() == AUTO:
            raise ValueError(
                "'auto' is for targets, not for data: leave the formula out, or name one, 'nsf*3'"
            )
        check_whole("draws", draws, 1)
        if decimal not in (None, ".", ","):
            raise ValueError(f"--decimal takes . or , and got {decimal!r}")
        start = start_of(Formula.parse(formula), base=base, seed=seed, dtype=dtype, device=device)
        rows, given = read_rows(data, columns, context, drop_missing, decimal)
        folder = Folder(results)
        fit = start.fit_data(
            rows,
            context=given,
            validation=validation,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            progress=progress,
        )
        said = fit.describe(shell=True)
        typer.echo(said)
        folder.density(fit, rows, given, draws)
        folder.report(partial(fit.report, x=rows if given is None else None, shell=True))
        folder.end(said, out)
    raise typer.Exit(exit_code(fit.stopped == "interrupted"))
