"""The scalars of the sites of a model, by name, and the table that sums them up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from nfvi.mcmc import mean_sd_quantiles
from nfvi.utils import align, scalar_names, short

__all__ = ["scalars", "summarize"]


def scalars(sites: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every scalar of sites (n, \\*event): its name, as in ``x[0,1]``, and its draws (n)."""
    for site, x in sites.items():
        places = scalar_names("", tuple(x.shape[1:]))
        for place, column in zip(places, x.reshape(len(x), -1).unbind(1), strict=True):
            yield site + place.replace(" ", ""), column


def summarize(sites: Mapping[str, Tensor]) -> str:
    """A table with a row for each scalar of sites (n, \\*event)."""
    numbers = {site: x.detach().double().cpu() for site, x in sites.items()}
    rows = [
        [name, *(short(value) for value in mean_sd_quantiles(draws))]
        for name, draws in scalars(numbers)
    ]
    return align(["", "mean", "sd", "5%", "50%", "95%"], rows)
