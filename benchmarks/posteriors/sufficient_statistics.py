"""Normal regressions by their sufficient statistics: the same densities, at the cost of one row.

NUTS from random starts takes two to ten million gradients on three posteriors of posteriordb, hours
through a Pyro model. Here the N rows enter once, by a QR decomposition of the design X = Q R: with
β̂ the least-squares coefficients and S their sum of squared residuals, the likelihood is ::

    log p(y | β, σ) = −½ (|R (β − β̂)|² + S) / σ² − N log σ − ½ N log 2π

A point is z = (β, log σ), in the order of the Pyro models, and its density has the Jacobian log σ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.posteriordb import POSTERIORS, Posterior
from nfvi import LogDensity

__all__ = ["SUMMARISED", "summarised_target"]

Prior = Callable[[Tensor], Tensor]
Summary = tuple[Tensor, Tensor, Prior | None]


def summarised_target(posterior: Posterior) -> LogDensity:
    """The density of ``posteriordb_target(posterior)`` on z (n, d), in double precision.

    Args:
        posterior: of posteriordb, one of ``SUMMARISED``.
    """
    arguments = POSTERIORS[posterior.name].arguments(posterior.data.values())
    x, y, prior = SUMMARISED[posterior.name](arguments)
    log_likelihood = _log_likelihood(x.double(), y.double())

    def log_prob(z: Tensor) -> Tensor:
        value = log_likelihood(z)
        return value if prior is None else value + prior(z)

    return LogDensity(log_prob, x.shape[1] + 1, name=posterior.name, batched=True)


def _log_likelihood(x: Tensor, y: Tensor) -> Prior:
    """log p(y | β, σ) + log σ as a function of z (n, p + 1), from the rows x (N, p) and y (N,)."""
    q, r = torch.linalg.qr(x)
    best = torch.linalg.solve_triangular(r, (q.T @ y).unsqueeze(-1), upper=True).squeeze(-1)
    least = (y - x @ best).square().sum()
    rows = len(y)
    constant = -0.5 * rows * math.log(2 * math.pi)

    def log_likelihood(z: Tensor) -> Tensor:
        value: Tensor = _Gaussian.apply(z, best, r, least, rows)
        return value + constant

    return log_likelihood


class _Gaussian(torch.autograd.Function):
    """−½ (|R (β − β̂)|² + S) e^(−2s) − (N − 1) s for z = (β, s), with its gradient by hand.

    One node in place of ten: most of a NUTS step on so small a density is autograd's overhead.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, best: Tensor, r: Tensor, least: Tensor, rows: int) -> Tensor:
        log_sigma = z[:, -1]
        offset = (z[:, :-1] - best) @ r.T
        precision = torch.exp(-2 * log_sigma)
        square = ((offset * offset).sum(-1) + least) * precision
        to_beta = -(offset @ r) * precision.unsqueeze(-1)
        gradient = torch.cat([to_beta, (square - (rows - 1)).unsqueeze(-1)], dim=-1)
        ctx.save_for_backward(gradient)
        return -0.5 * square - (rows - 1) * log_sigma

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0].unsqueeze(-1) * gradient, None, None, None, None


def _flat(arguments: Mapping[str, Any]) -> Summary:
    return arguments["x"], arguments["y"], None


def _line(arguments: Mapping[str, Any]) -> Summary:
    x, y = arguments["x"].double(), arguments["y"]
    pairs = [arguments["intercept"], arguments["slope"]]
    means, scales = torch.tensor(pairs, dtype=torch.float64, device="cpu").unbind(-1)
    constant = -(scales.log().sum() + math.log(2 * math.pi))

    def prior(z: Tensor) -> Tensor:
        standard = (z[:, :2] - means) / scales
        return constant - 0.5 * (standard * standard).sum(-1)

    return torch.stack([torch.ones_like(x), x], dim=-1), y, prior


def _centred(arguments: Mapping[str, Any]) -> Summary:
    """The intercept comes after the slopes; both Student's t laws have 3 degrees of freedom."""
    x, y = arguments["x"].double(), arguments["y"]
    x = x - x.mean(0)
    slopes = x.shape[1]
    student = math.lgamma(2.0) - math.lgamma(1.5) - 0.5 * math.log(3 * math.pi) - math.log(10.0)
    constant = 2 * student + math.log(2.0) - 0.5 * slopes * math.log(2 * math.pi)
    location = torch.tensor([8.0, 0.0], dtype=torch.float64, device="cpu")

    def prior(z: Tensor) -> Tensor:
        b = z[:, :slopes]
        folded = torch.stack([z[:, slopes], z[:, -1].exp()], dim=-1)
        standard = (folded - location) / 10.0
        tails = torch.log1p(standard * standard / 3.0).sum(-1)
        return constant - 0.5 * (b * b).sum(-1) - 2.0 * tails

    return torch.cat([x, torch.ones_like(x[:, :1])], dim=-1), y, prior


SUMMARISED: dict[str, Callable[[Mapping[str, Any]], Summary]] = {
    "earnings-logearn_interaction": _flat,
    "kilpisjarvi_mod-kilpisjarvi": _line,
    "diamonds-diamonds": _centred,
}
"""Posteriors on which NUTS takes millions of gradients: design, response and prior of each."""
