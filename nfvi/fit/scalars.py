"""The scalars of the sites of a model, by name, and the tables that sum them up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from nfvi.mcmc import mean_sd_quantiles, summary_frame
from nfvi.utils import scalar_names, short

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draws_frame", "scalars", "summarize", "summary_lines"]


def scalars(sites: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every scalar of sites (n, \\*event): its name, as in ``x[0,1]``, and its draws (n)."""
    for site, x in sites.items():
        places = scalar_names("", tuple(x.shape[1:]))
        for place, column in zip(places, x.reshape(len(x), -1).unbind(1), strict=True):
            yield site + place.replace(" ", ""), column


def draws_frame(sites: Mapping[str, Tensor]) -> pd.DataFrame:
    """Draws of sites (n, \\*event) as a table: a row for each draw and a column for each scalar."""
    import pandas as pd

    return pd.DataFrame({name: x.detach().cpu().numpy() for name, x in scalars(sites)})


def summarize(sites: Mapping[str, Tensor]) -> pd.DataFrame:
    """A row for each scalar of sites (n, \\*event) of independent draws.

    The columns are ``mean``, ``sd``, the quantiles ``5%``, ``50%`` and ``95%``, and the Monte-Carlo
    standard errors of mean and sd by ArviZ's names, ``mcse_mean`` and ``mcse_sd``.
    """
    numbers = {site: x.detach().double().cpu() for site, x in sites.items()}
    rows = {name: [*mean_sd_quantiles(x), *_errors(x)] for name, x in scalars(numbers)}
    return summary_frame(rows, ("mcse_mean", "mcse_sd"))


def summary_lines(frame: pd.DataFrame, most: int) -> str:
    """A summary for a terminal in short numbers, with the first rows alone if there are many."""
    text: str = frame.head(most).to_string(float_format=short)
    more = len(frame) - most
    return text + (f"\n... and {more} more" if more > 0 else "")


def _errors(x: Tensor) -> tuple[float, float]:
    """Standard errors of the mean and the sd of draws (n): sd/√n and sd √((κ − 1)/4n + 1/2n²)."""
    n, sd = len(x), float(x.std(correction=0))
    if n < 2 or sd == 0:
        return (0.0, 0.0) if n > 1 else (math.nan, math.nan)
    kurtosis = float(((x - x.mean()) / sd).pow(4).mean())
    return float(x.std()) / math.sqrt(n), sd * math.sqrt(
        max(0.0, kurtosis - 1) / (4 * n) + 0.5 / n**2
    )
