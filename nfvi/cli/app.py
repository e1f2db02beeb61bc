"""The command line: ``nfvi fit``, ``nfvi fit-data`` and ``nfvi flows``."""

from __future__ import annotations

from typing import Annotated

import typer

from nfvi._version import __version__
from nfvi.cli.data import fit_data
from nfvi.cli.fit import fit
from nfvi.flows import lookup, names
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


app.command()(fit)
app.command("fit-data")(fit_data)
