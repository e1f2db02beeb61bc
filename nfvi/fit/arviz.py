"""A fit in the groups of ArviZ, and cross-validation by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.diagnostics import WeightedDraws
from nfvi.fit.prediction import prior_points
from nfvi.targets import Target, known_likelihood
from nfvi.utils import arviz_functions, dims_for, to_inference_data

__all__ = ["Labels", "export", "loo_of"]

STATS = ("lp", "log_q", "importance_weights")


@dataclass(frozen=True)
class Labels:
    """Names of dimensions and labels along them.

    Attributes:
        target: what knows some.
        dims: those that go before the target's.
        coords: likewise.
    """

    target: Target
    dims: Mapping[str, Sequence[str]]
    coords: Mapping[str, Sequence[Any]]

    def check(self, z: Tensor) -> None:
        """Check what was given against the sites at points z (n, d).

        Raises:
            ValueError: a site or a dimension is not there, or a number of names or labels is
                another one than its site has.
        """
        for name, given in (("dims", self.dims), ("coords", self.coords)):
            if not isinstance(given, Mapping):
                raise ValueError(f"{name}= takes a dict, got {given!r}")
        shapes = {name: tuple(x.shape[1:]) for name, x in self.target.constrain(z).items()}
        for data in (self.target.observed_data, self.target.constant_data):
            shapes |= {name: np.shape(x) for name, x in data.items()}
        for name, dims in self.dims.items():
            if name not in shapes:
                raise ValueError(f"dims= names {name!r}; the sites are {', '.join(shapes)}")
            if isinstance(dims, str) or len(dims) != len(shapes[name]):
                raise ValueError(
                    f"dims= must have a list of {len(shapes[name])} names for {name!r}, whose shape"
                    f" is {shapes[name]}; got {dims!r}"
                )
        lengths = {
            dim: length
            for name, dims in {**self.target.dims, **self.dims}.items()
            for dim, length in zip(dims, shapes.get(name, ()), strict=False)
        }
        for dim, labels in self.coords.items():
            if dim not in lengths:
                raise ValueError(
                    f"coords= names the dimension {dim!r}; there are"
                    f" {', '.join(lengths) or 'none: name them by dims='}"
                )
            if len(labels) != lengths[dim]:
                raise ValueError(
                    f"coords= has {len(labels)} labels for {dim!r}, which is {lengths[dim]} long"
                )

    def dims_of(self, likelihood: Mapping[str, Tensor]) -> dict[str, Sequence[str]]:
        """The names, as far as they suit all groups."""
        return dims_for({**self.target.dims, **self.dims}, likelihood, STATS)

    def all_coords(self) -> dict[str, Sequence[Any]]:
        """The labels."""
        return {**self.target.coords, **self.coords}


def export(
    target: Target,
    draws: WeightedDraws,
    attrs: Mapping[str, Any],
    log_likelihood: bool,
    predictive_seed: int | None,
    labels: Labels,
) -> Any:
    """Draws of a fit for the installed ArviZ.

    Args:
        target: of the fit.
        draws: of its guide.
        attrs: what is true of the whole fit.
        log_likelihood: whether to add that of each observation, where it is available.
        predictive_seed: of new data and of the prior; ``None`` for none.
        labels: of dimensions.

    Raises:
        TargetError: with a seed, no data can be drawn from the target.
    """
    likelihood = known_likelihood(target, draws.z) if log_likelihood else {}
    groups = {"log_likelihood": likelihood}
    if predictive_seed is not None:
        groups |= _predictions(target, draws.z, predictive_seed)
    weights = draws.log_weights.exp()
    stats = dict(zip(STATS, (draws.log_p, draws.log_q, weights), strict=True))
    return to_inference_data(
        _chain(target.constrain(draws.z)),
        _chain(stats),
        attrs,
        observed_data=target.observed_data,
        constant_data=target.constant_data,
        dims=labels.dims_of(likelihood),
        coords=labels.all_coords(),
        predictions={name: _chain(group) for name, group in groups.items()},
    )


def loo_of(target: Target, draws: WeightedDraws, var_name: str | None) -> Any:
    """PSIS-LOO of weighted draws; see :meth:`Approximation.loo`.

    Raises:
        FitError: a draw has no finite density.
        TargetError: observations cannot be told apart.
        ValueError: ``var_name`` names no observed site, or there are several and it names none.
    """
    likelihood = target.log_likelihood(draws.z)
    name = _observed_site(likelihood, var_name)
    if not bool((draws.log_p.isfinite() & draws.log_q.isfinite()).all()):
        raise FitError(
            "a draw of the guide has no finite log-density under the target, so that the draws"
            " cannot be corrected by their weights; print(fit) says how many"
        )
    terms, dims = likelihood[name], list(target.dims.get(name, ()))[: likelihood[name].dim() - 1]
    shown = (terms != 0).any(0)
    if not bool(shown.all()):  # what a mask hides is no observation
        terms, dims = terms[:, shown], []
    arrays = [x.detach().cpu().numpy() for x in (terms, draws.log_p, draws.log_q)]
    return arviz_functions.loo_approximate(*arrays, name=name, dims=dims)


def _observed_site(likelihood: Mapping[str, Tensor], var_name: str | None) -> str:
    if var_name is None and len(likelihood) == 1:
        return next(iter(likelihood))
    if var_name not in likelihood:
        raise ValueError(
            f"var_name= must be one of the observed sites {', '.join(map(repr, likelihood))};"
            f" got {var_name!r}"
        )
    return str(var_name)


def _predictions(target: Target, z: Tensor, seed: int) -> dict[str, dict[str, Tensor]]:
    prior = prior_points(target, len(z), seed).to(z)
    return {
        "posterior_predictive": target.predict(z, seed=seed),
        "prior": target.constrain(prior),
        # Of another stream than the posterior's.
        "prior_predictive": target.predict(prior, seed=seed + 1),
    }


def _chain(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The draws as one chain."""
    return {name: torch.as_tensor(value).unsqueeze(0) for name, value in group.items()}
