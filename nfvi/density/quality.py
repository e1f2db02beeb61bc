"""How well a density describes its rows, beside a Gaussian as a yardstick."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nfvi.density.data import Data
from nfvi.density.likelihood import log_likelihood_of
from nfvi.density.split import Split, make_rows
from nfvi.density.standardization import Standardization
from nfvi.guides import Guide
from nfvi.utils import Positive, check_entries, record_of

__all__ = ["Likelihood", "Quality", "evaluate_fit"]


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of some rows, in nats a row and in the units of the data.

    Attributes:
        mean: weighted, where there are weights.
        se: standard error of the mean; NaN for a single row.
        gaussian: the mean under the Gaussian with the full covariance of the training rows (its
            mean linear in the context, where there is one); NaN where that is singular.
        rows: how many.
    """

    mean: float
    se: float
    gaussian: float
    rows: int


@dataclass(frozen=True)
class Quality:
    """The log-likelihood of the rows that trained a fit, and of those held out, if any."""

    train: Likelihood
    held_out: Likelihood | None

    def as_dict(self) -> dict[str, Any]:
        """Nested names -> numbers, for a JSON header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Quality:
        """What :meth:`as_dict` wrote.

        Raises:
            ValueError: a value is missing or wrong; the message names it.
        """
        read = check_entries(values, {"train": Any, "held_out": Any}, place="quality")
        train = record_of(Likelihood, read["train"], "quality.train", rows=Positive)
        if read["held_out"] is None:
            return cls(train, None)
        return cls(
            train, record_of(Likelihood, read["held_out"], "quality.held_out", rows=Positive)
        )


@dataclass(frozen=True)
class Scored:
    """The quality of a fit, and the row by row log-likelihoods of its reference rows.

    Attributes:
        quality: means.
        scores: log q (m) of the rows held out, or else of those that trained the fit.
        weights: (m), or ``None``.
    """

    quality: Quality
    scores: Tensor
    weights: Tensor | None


def evaluate_fit(guide: Guide, split: Split, units: Standardization) -> Scored:
    """Score all rows of a fit."""
    yardstick = _Gaussian(split.train, units)
    like = torch.empty(0, dtype=guide.dtype, device=guide.device)
    found: list[tuple[Likelihood, Tensor, Tensor | None]] = []
    for data in (split.train, split.held_out):
        if data is not None:
            log_q = log_likelihood_of(guide, make_rows(data, units, like)).double().cpu()
            log_q = log_q - units.log_scale
            weights = None if data.weights is None else data.weights.cpu()
            mean, se = _mean_and_error(log_q, weights)
            gaussian, _ = _mean_and_error(yardstick.log_prob(data).cpu(), weights)
            found.append((Likelihood(mean, se, gaussian, len(data)), log_q, weights))
    held_out = found[1][0] if len(found) > 1 else None
    return Scored(Quality(found[0][0], held_out), found[-1][1], found[-1][2])


def _mean_and_error(values: Tensor, weights: Tensor | None) -> tuple[float, float]:
    if weights is None:
        weights = torch.ones_like(values)
    share = weights / weights.sum()
    mean = (share * values).sum()
    if len(values) < 2:
        return float(mean), math.nan
    variance = (share.square() * (values - mean).square()).sum() * len(values) / (len(values) - 1)
    return float(mean), float(variance.sqrt())


class _Gaussian:
    """The Gaussian of highest likelihood on some rows; its mean is linear in the context."""

    def __init__(self, data: Data, units: Standardization) -> None:
        self.units = units
        x, design = self._parts(data)
        weights = torch.ones_like(x[:, 0]) if data.weights is None else data.weights
        share = (weights / weights.sum()).unsqueeze(1)
        gram = design.T @ (share * design)
        self.slope = torch.linalg.pinv(gram, hermitian=True) @ (design.T @ (share * x))
        rest = x - design @ self.slope
        covariance = rest.T @ (share * rest)
        self.factor, failed = torch.linalg.cholesky_ex(covariance)
        self.singular = bool(failed.any()) or not bool(
            (self.factor.diagonal() > 1e-7 * covariance.diagonal().sqrt()).all()
        )

    def _parts(self, data: Data) -> tuple[Tensor, Tensor]:
        x = self.units.scaled(data.x)
        one = torch.ones_like(x[:, :1])
        if data.context is None:
            return x, one
        return x, torch.cat([one, self.units.of_context(data.context, torch.float64)], 1)

    def log_prob(self, data: Data) -> Tensor:
        """Log-density (n) in the units of the data; NaN where the covariance is singular."""
        x, design = self._parts(data)
        if self.singular:
            return torch.full_like(x[:, 0], math.nan)
        rest = (x - design @ self.slope).T
        z = torch.linalg.solve_triangular(self.factor, rest, upper=False)
        log_det = self.factor.diagonal().log().sum() + self.units.log_scale
        constant = 0.5 * math.log(2 * math.pi) * x.shape[1]
        value: Tensor = -0.5 * z.square().sum(0) - log_det - constant
        return value
