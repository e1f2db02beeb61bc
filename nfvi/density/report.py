"""The sections of ``fit.report(path)`` of a fit to data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nfvi.density.html import HEADER
from nfvi.density.quality import Quality
from nfvi.density.text import DensityReport, advice, describe, number_rows
from nfvi.density.validation import ValidationRecord
from nfvi.formula import Formula
from nfvi.training import History
from nfvi.utils import Report, Section, facts, folded, frame, picture, preformatted, scrolled, words

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["density_report"]


class Reported(Protocol):
    """What a report asks of a fit to data."""

    @property
    def dim(self) -> int: ...
    @property
    def context_dim(self) -> int: ...
    @property
    def columns(self) -> tuple[str, ...] | None: ...
    @property
    def formula(self) -> Formula: ...
    @property
    def steps(self) -> int: ...
    @property
    def history(self) -> History: ...
    @property
    def validation(self) -> ValidationRecord | None: ...
    @property
    def quality(self) -> Quality: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...

    def rows(self, x: Any, /) -> Tensor:
        """Data, checked."""

    def log_prob(self, x: Any, context: Any = None, /) -> Tensor:
        """log q."""

    def sample(self, n: int, context: Any = None, /, *, seed: int | None = None) -> Any:
        """n draws."""

    def summary(self, n: int = ..., context: Any = None) -> pd.DataFrame:
        """A row for each column."""


def density_report(fit: Reported, said: DensityReport, x: Any, context: Any) -> Report:
    """What a report says of a fit to data.

    Args:
        fit: the fit.
        said: its text in numbers and words.
        x: rows to draw beside the density, or ``None``.
        context: one context (c) where the fit has one, or ``None``.
    """
    given = not fit.context_dim or context is not None
    rows = number_rows(said.quality)
    sections = [
        Section("Quality", tuple(_quality(said))),
        Section("Density", tuple(_density(fit, x, context) if given else ())),
        Section("Summary", (frame(fit.summary(context=context)),) if given else ()),
        Section("Course of the fit", (_course(fit),)),
        Section("Settings", (facts(_settings(fit, said)),)),
    ]
    kept = tuple(section for section in sections if section.parts)
    lead = f"Log-likelihood of {rows[-1][0]} rows: {rows[-1][1]} nats a row."
    return Report(f"{said.formula} on data, d = {said.dim}", lead, (), kept)


def _quality(said: DensityReport) -> Iterator[str]:
    yield scrolled(HEADER, number_rows(said.quality))
    yield from map(words, advice(said))
    yield folded("all of print(fit)", preformatted(describe(said)))


def _density(fit: Reported, x: Any, context: Any) -> Iterator[str]:
    from nfvi import plots

    if fit.dim <= 2:
        yield picture(lambda: plots.density(fit, x, context=context), "the density and the data")
    elif x is not None:
        yield picture(lambda: plots.rows(fit, x, context=context), "the data and draws of the fit")


def _course(fit: Reported) -> str:
    from nfvi import plots

    return picture(lambda: plots.history(fit), "the log-likelihood over the steps")


def _settings(fit: Reported, said: DensityReport) -> dict[str, Any]:
    """What was set, and how it went; the digest of the rows says nothing to a reader."""
    kept = {k: value for k, value in fit.settings.items() if k not in ("fingerprint", "table")}
    dtypes = (fit.settings.get("table") or {}).get("dtypes")
    return {**kept, "dtypes": dtypes, "seconds": f"{said.wall_time:.1f}", "stopped": said.stopped}
