"""What data are drawn at: draws of a guide, plain or by their weights, or of the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import TargetError
from nfvi.fit.diagnostics import WeightedDraws
from nfvi.fit.resampling import resample
from nfvi.guides import AnyGuide, sample_in_pieces
from nfvi.targets import Target
from nfvi.utils import check_flag

__all__ = ["NewInputs", "draw_seed", "new_inputs", "points_for", "prior_points"]


def points_for(
    guide: AnyGuide,
    target: Target,
    n: int,
    generator: torch.Generator,
    *,
    weighted: bool,
    prior: bool,
) -> tuple[Tensor, WeightedDraws | None]:
    """n points z (n, d) to draw data at, and for weighted ones the draws they were chosen from.

    Raises:
        ValueError: both weighted and of the prior, or one is neither True nor False.
        TargetError: the target has no prior.
    """
    check_flag("weighted", weighted)
    check_flag("prior", prior)
    if weighted and prior:
        raise ValueError(
            "weighted=True is for draws of the fit and prior=True for those of the prior; pass one"
        )
    if prior:
        z = prior_points(target, n, draw_seed(generator))
        return z.to(device=guide.device, dtype=guide.dtype), None
    if weighted:
        return resample(guide, target, n, generator)
    return sample_in_pieces(guide, n, generator), None


@dataclass(frozen=True)
class NewInputs:
    """What a model is to read in place of what it was fitted with; ``None`` for what stays."""

    args: tuple[Any, ...] | None
    kwargs: Mapping[str, Any] | None
    data: Mapping[str, Any] | None
    coords: Mapping[str, Sequence[Any]] | None

    def predict(self, target: Target, z: Tensor, seed: int) -> dict[str, Tensor]:
        """Data drawn at points z (n, d)."""
        if self.data is None and self.coords is None:
            return target.predict(z, seed=seed, args=self.args, kwargs=self.kwargs)
        return target.predict_new(z, seed=seed, data=self.data, coords=self.coords)


def new_inputs(
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    data: Mapping[str, Any] | None,
    coords: Mapping[str, Sequence[Any]] | None,
) -> NewInputs:
    """New arguments of a model, or new data of a PyMC model, checked.

    Raises:
        TypeError: the arguments are no sequence, or the keyword arguments no dict.
        ValueError: there are both.
    """
    if not (kwargs is None or isinstance(kwargs, Mapping)):
        raise TypeError(
            f"kwargs= takes a dict of the model's keyword arguments; got {type(kwargs).__name__}"
        )
    if not (args is None or isinstance(args, tuple | list)):
        raise TypeError(
            "args= takes a tuple of the model's positional arguments, as in args=(x_new, None);"
            f" got {type(args).__name__}"
        )
    if not (data is None and coords is None) and not (args is None and kwargs is None):
        raise ValueError(
            "args= and kwargs= are for Pyro and NumPyro models, data= and coords= for PyMC models;"
            " pass those of the model that was fitted"
        )
    return NewInputs(None if args is None else tuple(args), kwargs, data, coords)


def draw_seed(generator: torch.Generator) -> int:
    """A seed from a stream, for what takes no generator."""
    return int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))


def prior_points(target: Target, n: int, seed: int) -> Tensor:
    """n draws z (n, d) from the prior of a model.

    Raises:
        TargetError: it has none that can be drawn from.
    """
    z = target.prior_draws(n, seed)
    if z is None:
        raise TargetError(
            f"target {target.name!r} has no prior that can be drawn from; give every latent site"
            " of a Pyro, NumPyro or PyMC model a proper prior"
        )
    return z
