"""The command line: ``nfvi fit``, ``nfvi fit-data`` and ``nfvi flows``."""

from __future__ import annotations

from textwrap import wrap
from typing import Annotated

import typer

from nfvi._version import __version__
from nfvi.cli.data import fit_data
from nfvi.cli.fit import fit
from nfvi.flows import FlowSpec, lookup, names

__all__ = ["app"]

app = typer.Typer(
    name="nfvi",
    help="Variational inference with normalizing flows: a formula, a target, an honest fit.",
    no_args_is_help=True,
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
    """List the flows that a formula can name, with what each does and its options."""
    specs = [lookup(name) for name in names() if lookup(name).name == name]
    column = max(len(spec.name) for spec in specs) + 2
    for spec in specs:
        typer.echo(_entry(spec, column))


def _entry(spec: FlowSpec, column: int) -> str:
    """A flow in lines of at most 80 columns, what is said of it starting at one of them."""
    facts = [f"closed form: {FAST[spec.cls.fast]}"]
    if spec.options:
        facts.append(f"options: {', '.join(map(str, spec.options.values()))}")
    if spec.aliases:
        facts.append(f"other names: {', '.join(spec.aliases)}")
    said = [line for text in (spec.help, *facts) for line in wrap(text, 80 - column)]
    first, *rest = said
    return "\n".join([f"{spec.name:<{column}}{first}", *(" " * column + line for line in rest)])


app.command()(fit)
app.command("fit-data")(fit_data)
