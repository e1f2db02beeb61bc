"""The scalars of the sites of a model, by name, and the tables that sum them up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from nfvi.mcmc import frame_text, summary_frame
from nfvi.utils import hdi, scalar_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draws_frame", "scalars", "summarize", "summary_lines"]


def scalars(sites: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every scalar of sites (n, \\*event): its name, as in ``x[0, 1]``, and its draws (n)."""
    for site, x in sites.items():
        names = scalar_names(site, tuple(x.shape[1:]))
        yield from zip(names, x.reshape(len(x), -1).unbind(1), strict=True)


def draws_frame(sites: Mapping[str, Tensor]) -> pd.DataFrame:
    """Draws of sites (n, \\*event) as a table: a row for each draw and a column for each scalar."""
    import pandas as pd

    return pd.DataFrame({name: x.detach().cpu().numpy() for name, x in scalars(sites)})


def summarize(sites: Tensor | Mapping[str, Tensor], weights: Tensor | None = None) -> pd.DataFrame:
    """A row for each scalar of sites (n, \\*event) of independent draws, by ArviZ's names.

    The columns are ``mean``, ``sd``, the ends ``hdi_3%`` and ``hdi_97%`` of the narrowest interval
    with 94 % of the draws, and the Monte-Carlo standard errors of mean and sd, ``mcse_mean`` and
    ``mcse_sd``.

    Args:
        sites: the draws; a tensor is one site, ``z``.
        weights: of the draws (n), at least 0; default all alike.
    """
    sites = {"z": sites} if isinstance(sites, Tensor) else sites
    numbers = {site: x.detach().double().cpu() for site, x in sites.items()}
    share = None if weights is None else weights.detach().double().cpu()
    if share is not None:  # a draw without weight may be anything, NaN too
        used = share > 0
        share = share[used] / share[used].sum()
        numbers = {site: x[used] for site, x in numbers.items()}
    rows = {name: _numbers(x, share) for name, x in scalars(numbers)}
    return summary_frame(rows, ("mcse_mean", "mcse_sd"))


def summary_lines(frame: pd.DataFrame, most: int) -> str:
    """A summary for a terminal in short numbers, with the first rows alone if there are many."""
    return frame_text(frame, most)


def _numbers(x: Tensor, share: Tensor | None) -> list[float]:
    """Mean, sd, interval and standard errors of draws (n) whose shares w of the weight sum to 1.

    The variance is Σ w (x − mean)² / (1 − Σ w²), as of a sample: with equal weights of n − 1. The
    error of the mean is √(Σ w² (x − mean)² / (1 − Σ w²)), sd/√n with equal weights, and that of the
    sd is by the delta method: sd √(Σ w² (y − 1)² / 4 + (Σ w²)² / 2) with y = (x − mean)² over its
    mean, sd √((κ − 1)/4n + 1/2n²) with equal weights.
    """
    n = len(x)
    w = x.new_full((n,), 1 / n) if share is None else share
    mean, doubled = float((w * x).sum()), float(w.square().sum())
    ends = hdi(x.numpy(), None if share is None else share.numpy())
    squares = (x - mean).square()
    variance = float((w * squares).sum())
    if n < 2 or doubled >= 1:
        return [mean, math.nan, *ends, math.nan, math.nan]
    if variance == 0:
        return [mean, 0.0, *ends, 0.0, 0.0]
    free = 1 - doubled
    of_mean = math.sqrt(float((w.square() * squares).sum()) / free)
    excess = float((w * (squares / variance - 1)).square().sum())
    of_sd = math.sqrt(variance * (excess / 4 + doubled**2 / 2))
    return [mean, math.sqrt(variance / free), *ends, of_mean, of_sd]
