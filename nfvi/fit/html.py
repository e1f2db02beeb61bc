"""What a notebook shows of a fit: the verdict, its numbers, the course of the ELBO."""

from __future__ import annotations

from collections.abc import Sequence

from nfvi.fit.text import FitReport, describe, number_rows
from nfvi.fit.verdict import judge
from nfvi.utils import card, folded, html_table, preformatted, sparkline

__all__ = ["fit_html"]


def fit_html(fit: FitReport, elbo: Sequence[float]) -> str:
    """A card with the verdict on top, and all that ``print(fit)`` says folded below.

    Args:
        fit: what is shown.
        elbo: that of the best restart at each step, nats; empty without steps.
    """
    title = f"NFVI {fit.formula!r} on {fit.target}, d = {fit.dim}, base {fit.base}"
    whole = folded("all of print(fit)", preformatted(describe(fit)))
    if fit.findings is None:
        return card(title, "No diagnostics: load it with target= to compute them.", whole)
    numbers = html_table([], number_rows(fit.findings), left=3)
    curve = sparkline(elbo, f"ELBO over {len(elbo):,} steps")
    return card(title, str(judge(fit.findings)), numbers, curve, whole)
