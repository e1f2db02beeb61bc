"""Expectations under the target, by importance sampling from a guide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.errors import FitError
from nfvi.fit.diagnostics import WeightedDraws

__all__ = ["Expectation", "expectation_of", "weights_of"]


@dataclass(frozen=True)
class Expectation:
    """E_p[f] and how sure it is.

    Attributes:
        mean: Σ w f (\\*shape) with the Pareto-smoothed weights w, which sum to 1.
        se: its standard error (\\*shape), √(Σ w² (f − mean)²); to be believed where ``khat`` is
            below 0.7.
        khat: Pareto k-hat of the weights.
        ess: what the draws are worth, 1 / Σ w².
    """

    mean: Tensor
    se: Tensor
    khat: float
    ess: float


def weights_of(draws: WeightedDraws) -> Tensor:
    """The weights of draws (n), which sum to 1.

    Raises:
        FitError: no draw has any weight.
    """
    weights = draws.log_weights.exp()
    if not bool((weights > 0).any()):
        raise FitError("no draw of the guide has a finite log-density under the target")
    return weights


@torch.no_grad()
def expectation_of(
    function: Callable[[Any], Tensor], sites: Any, draws: WeightedDraws
) -> Expectation:
    """The expectation of a function from weighted draws.

    Args:
        function: from the sites of n draws to values (n, \\*shape).
        sites: what it is called with.
        draws: the same draws with their weights.

    Raises:
        FitError: no draw has any weight.
        ValueError: the function does not return one value for each draw, or one that is not
            finite where the target is positive.

    Reference:
        Owen, Monte Carlo theory, methods and examples, 2013, section 9.2. Vehtari, Simpson,
        Gelman, Yao and Gabry, Pareto smoothed importance sampling, 2024.
    """
    weights = weights_of(draws)
    values = function(sites)
    n = len(weights)
    if not isinstance(values, Tensor) or values.shape[:1] != (n,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"function must return a tensor with one value for each of the {n:,} draws, (n, ...);"
            f" got {got}"
        )
    # A draw that the target excludes counts for nothing, whatever the function makes of it.
    used = weights > 0
    values, weights = values[used].to(weights), weights[used]
    if not bool(values.isfinite().all()):
        raise ValueError("function returned NaN or inf at a draw where the target is positive")
    weights = weights.reshape(-1, *[1] * (values.dim() - 1))
    mean = (weights * values).sum(0)
    se = (weights * (values - mean)).square().sum(0).sqrt()
    return Expectation(mean, se, draws.khat, float(1 / weights.square().sum()))
