"""What the examples share: their arguments, where figures go, and how much is run."""

from __future__ import annotations

import argparse
import os
import platform
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nfvi

__all__ = ["Example"]


class Example:
    """An example that was started with ``--out`` and ``--quick``.

    Args:
        name: of the script; figures go to ``out/<name>`` unless ``--out`` says otherwise.
        about: the docstring of the script, for ``--help``; its first line is printed.
        argv: the arguments; default those of the command line.

    Attributes:
        quick: whether to run a few steps only, to see that everything works.
    """

    def __init__(self, name: str, about: str, argv: Sequence[str] | None = None) -> None:
        parser = argparse.ArgumentParser(
            description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--out", default=f"out/{name}", help="for the figures (%(default)s)")
        parser.add_argument("--quick", action="store_true", help="few steps: to see that it runs")
        options = parser.parse_args(argv)
        self.quick: bool = options.quick
        self._out = Path(options.out)
        self._out.mkdir(parents=True, exist_ok=True)
        packages = (
            f"nfvi {nfvi.__version__}, torch {version('torch')}, pyro-ppl {version('pyro-ppl')}"
        )
        print(about.splitlines()[0])
        print(f"{packages}, Python {platform.python_version()}, {os.cpu_count()} CPU cores")
        if self.quick:
            print("--quick: a few steps only, to see that it runs; the numbers mean nothing")

    @property
    def fitting(self) -> dict[str, Any]:
        """Arguments for ``NFVI.fit``: none, so that its defaults hold, or few steps."""
        return {"steps": 20, "n_mc": 32} if self.quick else {}

    @property
    def fitting_data(self) -> dict[str, Any]:
        """Arguments for ``NFVI.fit_data``: none, so that its defaults hold, or one epoch."""
        return {"epochs": 1} if self.quick else {}

    def sampling(self, draws: int, warmup: int) -> dict[str, Any]:
        """Arguments for ``nuts`` and ``hmc``."""
        return {"draws": 20, "warmup": 20} if self.quick else {"draws": draws, "warmup": warmup}

    def heading(self, text: str) -> None:
        """A title in the output."""
        print(f"\n{text}\n{'=' * len(text)}", flush=True)

    def say(self, text: str) -> None:
        """A paragraph in the output."""
        print(textwrap.fill(" ".join(text.split()), 96), flush=True)

    def save(self, picture: Figure | Axes, name: str) -> None:
        """Write a figure, or the one that the axes are in, as a PNG and say where."""
        figure = picture.figure if isinstance(picture, Axes) else picture
        path = self._out / f"{name}.png"
        figure.savefig(path)
        print(f"figure: {path}", flush=True)
