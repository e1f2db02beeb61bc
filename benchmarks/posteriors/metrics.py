"""How far the moments of draws are from those of the posterior: b², for x and x².

b² = (estimate − truth)² / variance, for the mean of a scalar x and for that of x². The mean of n
independent draws has an expected b² of 1 / n, so that b² = 0.01 is worth a hundred draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.moments import Moments, exact_moments, moments_of
from models.posteriordb import Posterior, reference_draws, reference_scalars
from nfvi.targets import Target

__all__ = ["Reference", "SquaredBias", "exact_reference", "posteriordb_reference", "squared_bias"]


class SquaredBias(NamedTuple):
    """b² of every scalar.

    Attributes:
        x: for the mean of x, (K,).
        square: for the mean of x², (K,).
    """

    x: Tensor
    square: Tensor

    @property
    def worst(self) -> float:
        """The largest of all; NaN where any is."""
        return torch.cat(self).max().item()

    @property
    def average(self) -> float:
        """The mean over all."""
        return torch.cat(self).mean().item()


@dataclass(frozen=True)
class Reference:
    """What is known of a posterior, and how to compare with it.

    Attributes:
        keys: the names of the K scalars that are compared, as ``"beta[3]"``.
        moments: of these, each (K,).
        scalars: from the sites of a target, (n, \\*event) each, to the scalars (n, K).
    """

    keys: tuple[str, ...]
    moments: Moments
    scalars: Callable[[Mapping[str, Tensor]], Tensor]

    def bias(self, sites: Mapping[str, Tensor], weights: Tensor | None = None) -> SquaredBias:
        """b² of draws by site, as ``Fit.sample`` gives them; see :func:`squared_bias`."""
        return squared_bias(self.scalars(sites), self.moments, weights)


def squared_bias(values: Tensor, reference: Moments, weights: Tensor | None = None) -> SquaredBias:
    """b² of each column of values.

    Args:
        values: draws (n, K) on the scale of the reference.
        reference: the moments, each (K,).
        weights: of the draws, (n,), at least 0 with the sum 1; default 1 / n each.

    Raises:
        ValueError: the shapes do not go together, or the weights do not sum to 1.
    """
    if values.dim() != 2 or values.shape[1:] != reference.mean.shape:
        raise ValueError(
            f"values must be (n, {len(reference.mean)}), as the reference; got"
            f" {tuple(values.shape)}"
        )
    x = values.double()
    if weights is None:
        weights = torch.full_like(x[:, 0], 1 / len(x))
    weights = _checked(weights.to(x), len(x))
    mean, square_mean = weights @ x, weights @ x.square()
    return SquaredBias(
        (mean - reference.mean).square() / reference.variance,
        (square_mean - reference.square_mean).square() / reference.square_variance,
    )


def posteriordb_reference(posterior: Posterior) -> Reference:
    """From the reference draws of a posterior in posteriordb, ten chains of a thousand.

    Their own error is part of every b² measured with them, of about 1e-4.
    """
    draws = reference_draws(posterior)
    values = torch.stack([value.flatten() for value in draws.values()], dim=-1)

    def scalars(sites: Mapping[str, Tensor]) -> Tensor:
        by_key = reference_scalars(posterior.name, sites)
        return torch.stack([by_key[key] for key in draws], dim=-1)

    return Reference(tuple(draws), moments_of(values), scalars)


def exact_reference(target: Target, *, draws: int = 1_000_000, seed: int = 0) -> Reference:
    """From closed forms or a million exact draws, for a target on R^d; see ``exact_moments``.

    Raises:
        TargetError: there is neither a closed form nor a sampler.
    """
    keys = tuple(f"z[{i}]" for i in range(1, target.dim + 1))
    return Reference(keys, exact_moments(target, draws=draws, seed=seed), lambda sites: sites["z"])


def _checked(weights: Tensor, n: int) -> Tensor:
    total = weights.sum().item()
    if weights.shape != (n,) or not abs(total - 1) < 1e-4:
        raise ValueError(
            f"weights must be ({n},) with the sum 1; got {tuple(weights.shape)} with the sum"
            f" {total:.6g}: divide them by it"
        )
    return weights / total
