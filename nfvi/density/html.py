"""What a notebook shows of a fit to data: its likelihoods, and their course."""

from __future__ import annotations

from collections.abc import Sequence

from nfvi.density.text import DensityReport, describe, number_rows
from nfvi.utils import card, folded, html_table, preformatted, sparkline

__all__ = ["density_html"]

HEADER = ["", "log-likelihood, nats a row", "that of a Gaussian", "rows"]


def density_html(fit: DensityReport, log_likelihood: Sequence[float]) -> str:
    """A card with the likelihoods, and all that ``print(fit)`` says folded below.

    Args:
        fit: what is shown.
        log_likelihood: of the rows of each step, nats a row.
    """
    title = f"NFVI {fit.formula!r} on data, d = {fit.dim}, base {fit.base}"
    rows = number_rows(fit.quality)
    lead = f"Log-likelihood of {rows[-1][0]} rows: {rows[-1][1]} nats a row."
    curve = sparkline(log_likelihood, f"log-likelihood of the batches, {fit.steps:,} steps")
    whole = folded("all of print(fit)", preformatted(describe(fit)))
    return card(title, lead, html_table(HEADER, rows), curve, whole)
