"""Options that the commands share, and the panels of the help that all options stand in."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

__all__ = [
    *("Base", "Device", "Progress", "Seed", "Trace"),
    *("dtype_option", "fitting_option", "guide_option", "out_option", "result_option"),
]

guide_option = partial(typer.Option, rich_help_panel="The guide")
fitting_option = partial(typer.Option, rich_help_panel="The fit")
result_option = partial(typer.Option, rich_help_panel="Results")
dtype_option = partial(guide_option, metavar="float32|float64")
out_option = partial(result_option, metavar="DIR")

Base = Annotated[
    str | None,
    guide_option(help="Base distribution: normal, laplace, studentt(df=5). Default: normal."),
]
Seed = Annotated[int | None, guide_option(help="Fixes everything random. Default: a new one.")]
Device = Annotated[str | None, guide_option(help="cpu, cuda, cuda:1. Default: cpu.")]
Progress = Annotated[
    bool | None, result_option(help="Show a progress bar. Default: in a terminal.")
]
Trace = Annotated[
    bool,
    result_option("--traceback", help="After an error, show where it was raised."),
]
