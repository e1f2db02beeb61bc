"""What ``--out`` leaves in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from torch import Tensor

from nfvi.assess import Comparison
from nfvi.density import DensityFit
from nfvi.fit import Fit
from nfvi.inference import NFVI
from nfvi.mcmc import MCMCRun
from nfvi.utils import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["Folder"]

DPI = 120


class Folder:
    """The folder of results; without a path nothing is written.

    Each file is written whole or not at all: an older one stays until the new one is complete.

    Args:
        path: made if it is not there; files of earlier results are replaced. Pictures are among
            them if Matplotlib is there; a line on stderr says so if it is not.

    Attributes:
        written: the files so far, in order.

    Raises:
        OSError: the folder cannot be made, or is a file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.figures = path, path is not None and _can_draw()
        self.written: list[Path] = []
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)

    def text(self, name: str, text: str) -> None:
        """Write a text."""
        if self.path is not None:
            with whole_file(self.path / name) as draft:
                draft.write_text(text.rstrip() + "\n", encoding="utf-8")
            self._note(name)

    def end(self, summary: str, shown: Path | None) -> None:
        """Write what was printed, and print what was written.

        Args:
            summary: what was printed.
            shown: the folder as it was asked for, even where a target has changed the current one.
        """
        self.text("summary.txt", summary)
        if shown is not None and self.written:
            files = [f"  {shown / path.name}" for path in self.written]
            typer.echo("\n".join(["\nwritten:", *files]))

    def draws(self, name: str, sites: dict[str, Tensor]) -> None:
        """Write draws as arrays by site, for ``numpy.load``."""
        if self.path is not None:
            arrays: dict[str, Any] = {k: x.detach().cpu().numpy() for k, x in sites.items()}
            with whole_file(self.path / name) as draft, draft.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            self._note(name)

    def fit(self, fit: Fit, start: NFVI | None, draws: int, *, weighted: bool = False) -> None:
        """Write the fit, draws of it, and its pictures.

        Args:
            fit: with its target.
            start: what was fitted, for the picture of the start; ``None`` leaves it out.
            draws: how many draws.
            weighted: whether to resample them by their importance weights.
        """
        if self.path is None:
            return
        self._save(self.path, fit)
        draw = fit.importance_resample if weighted else fit.sample
        sample = draw(draws, seed=fit.seed)
        self.draws("draws.npz", sample if isinstance(sample, dict) else {"z": sample})
        if self.figures:
            self._fit_figures(fit, start)

    def comparison(self, run: MCMCRun, comparison: Comparison) -> None:
        """Write the draws of a run, and the table and the picture of its comparison."""
        if self.path is None:
            return
        self.draws("nuts.npz", run.sites())
        self.text("table.txt", str(comparison))
        if self.figures:
            self._figure("comparison.png", comparison.plot())

    def report(self, write: Callable[[Path], None]) -> None:
        """Have one HTML file written with all of it, where pictures can be drawn.

        Args:
            write: to a path, such as ``fit.report``.
        """
        if self.path is None or not self.figures:
            return
        try:
            write(self.path / "report.html")
        except ImportError as error:
            typer.echo(f"nfvi: no report, since {error}", err=True)
            return
        self._note("report.html")

    def density(self, fit: DensityFit, x: Any, context: Any, draws: int) -> None:
        """Write a fit to data, log q of each row, draws of it, and its pictures.

        Args:
            fit: to the rows x (n, d).
            x: the rows.
            context: (n, c), or ``None``; draws and pictures of rows are for none alone.
            draws: how many, under the names of the columns.
        """
        if self.path is None:
            return
        self._save(self.path, fit)
        scores = np.asarray(fit.score_samples(x, context), np.float64)
        lines = [f"{row},{score!r}" for row, score in enumerate(scores.tolist())]
        self.text("scores.csv", "\n".join(["row,log_prob", *lines]))
        if context is None:
            # With the dtypes of a table; columns without names have some there all the same.
            draw = fit.to_dataframe if fit.columns is None else fit.sample
            self.text("draws.csv", draw(draws, seed=fit.seed).to_csv(index=False))
        if self.figures:
            from nfvi import plots

            self._figure("history.png", plots.history(fit).get_figure(root=True))
            if fit.dim <= 2 and context is None:
                self._figure("density.png", plots.density(fit, x).get_figure(root=True))
            elif context is None:
                self._figure("rows.png", plots.rows(fit, x))

    def _save(self, path: Path, fit: Fit | DensityFit) -> None:
        fit.save(path / "fit.safetensors")
        self._note("fit.safetensors")

    def _fit_figures(self, fit: Fit, start: NFVI | None) -> None:
        from nfvi import plots

        if fit.steps:
            self._figure("history.png", plots.history(fit).get_figure(root=True))
        if start is not None and fit.path is None and fit.target is not None:
            axes = plots.starting(start, fit.target, seed=fit.seed)
            self._figure("starting.png", axes.get_figure(root=True))
        if fit.dim == 2:
            self._figure("target.png", plots.fitted(fit))
        if fit.dim != 2 or (fit.target is not None and fit.target.named):
            self._figure("posterior.png", plots.pairs(fit))

    def _figure(self, name: str, figure: Figure | SubFigure | None) -> None:
        if self.path is not None and figure is not None:
            with whole_file(self.path / name) as draft:
                figure.savefig(draft, dpi=DPI)  # type: ignore[union-attr]
            self._note(name)

    def _note(self, name: str) -> None:
        if self.path is not None and self.path / name not in self.written:
            self.written.append(self.path / name)


def _can_draw() -> bool:
    try:
        import nfvi.plots  # noqa: F401
    except ImportError as error:
        typer.echo(f"nfvi: no figures and no report, since {error}", err=True)
        return False
    return True
