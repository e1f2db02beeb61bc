"""A logistic regression of a million rows, fitted by minibatches, beside its posterior.

    python -m benchmarks.rows                                        # 10⁶ rows of 50 numbers
    python -m benchmarks.rows --rows 100000 --columns 20 --plain     # and without anchors

The posterior is Laplace's on all rows, whose mean is corrected for the skewness of the likelihood;
what is left out is of order d / N. Errors of the guide are those of its largest mean and sd, from
200 000 draws, which tell a mean to 0.002 sd. Memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from benchmarks.environment import describe_environment
from nfvi import NFVI, RowsTarget
from nfvi.guides import Guide
from nfvi.inference import FitArguments, target_trainer
from nfvi.training import Anchors, Ensemble

PIECE = 20_000
DRAWS = 200_000


def log_prior(w: Tensor) -> Tensor:
    """A standard normal."""
    return -0.5 * (w**2).sum(-1)


def log_likelihood(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of y = ±1."""
    return logsigmoid(y * (x @ w))


def simulated(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """x (N, d) in float32, neighbours correlated by a half, and y = ±1 (N)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=generator)
    for j in range(1, columns):
        x[:, j].mul_(0.75**0.5).add_(x[:, j - 1], alpha=0.5)
    w = 0.5 * torch.randn(columns, generator=generator)
    return x, 2 * (x @ w).sigmoid().bernoulli(generator=generator) - 1


def posterior(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd of w by Newton's method in float64, with the first correction of the mean."""
    d = x.shape[1]
    mode = torch.zeros(d, dtype=torch.float64)
    for _ in range(20):
        slope, precision = -mode, torch.eye(d, dtype=torch.float64)
        for part, signs in zip(x.split(PIECE), y.split(PIECE), strict=True):
            part, signs = part.double(), signs.double()
            p = (-signs * (part @ mode)).sigmoid()
            slope = slope + part.T @ (signs * p)
            precision = precision + (part.T * (p * (1 - p))) @ part
        mode = mode + torch.linalg.solve(precision, slope)
    covariance = torch.linalg.inv(precision)
    skew = torch.zeros_like(mode)
    for part in x.split(PIECE):
        part = part.double()
        p = (part @ mode).sigmoid()
        third = -p * (1 - p) * (1 - 2 * p)
        skew = skew + part.T @ (third * ((part @ covariance) * part).sum(1))
    return mode + 0.5 * covariance @ skew, covariance.diagonal().sqrt()


class NoAnchors(Anchors):
    """Anchors that take nothing off, since the log-density is not known there."""

    def at(self, ensemble: Ensemble) -> tuple[Tensor, Tensor, Tensor]:
        """As it is, without the log-density."""
        point, height, slope = super().at(ensemble)
        return point, height * torch.nan, slope


def without_anchors(formula: str, target: RowsTarget, steps: int) -> Guide:
    """The guide of the same fit whose steps have all the noise of their rows."""
    arguments = FitArguments(steps=steps)
    trainer = target_trainer(NFVI(formula, seed=1).spec, target, arguments)
    anchors = NoAnchors(target, sys.maxsize)
    trainer.objective = replace(trainer.objective, anchors=anchors)
    trainer.run()
    return trainer.guide(0)


def errors(guide: Guide, mean: Tensor, sd: Tensor) -> str:
    """The largest error of a mean, in sds, and of an sd, in per cent."""
    draws = guide.sample(DRAWS, generator=torch.Generator().manual_seed(2)).double()
    off = float(((draws.mean(0) - mean) / sd).abs().max())
    wide = float((draws.std(0) / sd - 1).abs().max())
    return f"largest error of a mean {off:.3f} sd, of an sd {wide:.1%}"


def main() -> None:
    """Fit, and print what it took and how far it is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=1_024)
    parser.add_argument("--formula", default="scale-loc")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--plain", action="store_true", help="fit without anchors as well")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_environment())
    x, y = simulated(chosen.rows, chosen.columns)
    target = RowsTarget(
        log_prior,
        log_likelihood,
        (x, y),
        dim=chosen.columns,
        batch_size=chosen.batch_size,
        name="logistic regression",
    )
    cpu, wall = time.process_time(), time.perf_counter()
    fit = NFVI(chosen.formula, seed=1).fit(target, steps=chosen.steps)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    print(f"fit: {spent[0]:.0f} s of CPU, {spent[1]:.0f} s in all", flush=True)
    cpu, wall = time.process_time(), time.perf_counter()
    print(fit)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    print(f"diagnostics and search: {spent[0]:.0f} s of CPU, {spent[1]:.0f} s in all")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    print(f"peak memory {peak:.2f} GiB", flush=True)
    mean, sd = posterior(x, y)
    print(errors(fit.guide, mean, sd), flush=True)
    if chosen.plain:
        guide = without_anchors(chosen.formula, target, chosen.steps)
        print(f"without anchors: {errors(guide, mean, sd)}")


if __name__ == "__main__":
    main()
