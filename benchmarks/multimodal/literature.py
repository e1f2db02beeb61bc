"""Tasks of the sampling literature, with what is known of their log Z."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.multimodal.catalogue import halves
from benchmarks.multimodal.families import gaussian_mixture, independent
from benchmarks.multimodal.problem import Modes, Moments, Problem

__all__ = ["FROM_FILES", "LITERATURE"]

LOG_TAU = math.log(math.tau)


def gmm40() -> Problem:
    """Forty equal Gaussians of sd log(1 + e) with means uniform on [−40, 40]²; log Z = 0.

    Reference:
        Midgley, Stimper, Simm, Schölkopf and Hernández-Lobato, Flow annealed importance sampling
        bootstrap, 2023.
    """
    generator = torch.Generator().manual_seed(0)
    locs = 80 * torch.rand(40, 2, generator=generator, dtype=torch.float64) - 40
    sds = [math.log1p(math.e)] * 40
    return gaussian_mixture(2, [1.0] * 40, locs.tolist(), sds)


def many_well(dim: int) -> Problem:
    """d / 2 double wells, each beside a standard normal without its constant: 2^(d/2) modes.

    Reference:
        Noé, Olsson, Köhler and Wu, Boltzmann generators, 2019.
    """
    half = dim // 2

    def log_well(x: Tensor) -> Tensor:
        return -(x**4) + 6 * x.square() + 0.5 * x

    well = independent(half, log_well, -8, 8, parts=halves(log_well))
    if well.log_z is None or well.moments is None or well.modes is None or well.sample is None:
        raise ValueError("everything is known of a double well")
    draw, memberships = well.sample, well.modes.memberships

    def log_prob(z: Tensor) -> Tensor:
        return log_well(z[:, 0::2]).sum(1) - 0.5 * z[:, 1::2].square().sum(1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, half, generator=generator, dtype=torch.float64)
        return torch.stack([draw(n, generator), noise], 2).flatten(1)

    mean = torch.stack([well.moments.mean, torch.zeros(half)], 1).flatten()
    sd = torch.stack([well.moments.sd, torch.ones(half)], 1).flatten()
    return Problem(
        dim,
        log_prob,
        log_z=well.log_z + half * 0.5 * LOG_TAU,
        moments=Moments(mean, sd),
        modes=Modes(well.modes.masses, lambda z: memberships(z[:, 0::2])),
        sample=sample,
    )


OBSERVED = (
    *(0.21592641, 0.118771404, -0.07945447, 0.037677474, -0.27885845),
    *(-0.1484156, -0.3250906, -0.22957903, -0.44110894, -0.09830782),
    *(-0.8786016, -0.83736074, -0.7384849, -0.8939254, -0.7774566),
    *(-0.70238715, -0.87771565, -0.51853573, -0.6948214, -0.6202789),
)
"""At steps 1 to 10 and 21 to 30."""


def brownian() -> Problem:
    """Brownian motion of 30 steps with unknown scales, of which the middle ten are not observed.

    z holds the logarithms of the two scales, each N(0, 2²), and the 30 places. Given the scales
    all else is Gaussian, so that log Z is an integral over two numbers, done by quadrature.

    Reference:
        Sountsov, Radul and contributors, Inference gym, 2020.
    """
    seen = torch.cat([torch.arange(10), torch.arange(20, 30)])
    observed = torch.tensor(OBSERVED, dtype=torch.float64)

    def log_prob(z: Tensor) -> Tensor:
        scales, x = z[:, :2], z[:, 2:]
        step, noise = scales.unbind(1)
        prior = (-0.5 * (scales / 2).square() - math.log(2) - 0.5 * LOG_TAU).sum(1)
        moves = torch.diff(x, dim=1, prepend=torch.zeros_like(x[:, :1]))
        errors = observed.to(z) - x[:, seen]
        return prior + _log_normal(moves, step) + _log_normal(errors, noise)

    return Problem(32, log_prob, log_z=1.18775)


def sonar(folder: Path) -> Problem:
    """Logistic regression on 60 standardised columns and an intercept, all with N(0, 1) priors.

    log Z comes from importance sampling, and is rounded to two decimals.

    Args:
        folder: with ``sonar.csv``, a header and a class R or M in the last column.

    Reference:
        Gorman and Sejnowski, Analysis of hidden units in a layered network, 1988. Chopin and
        Ridgway, Leave Pima Indians alone, 2017.
    """
    with (folder / "sonar.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    x = torch.tensor([[float(v) for v in row[:-1]] for row in rows], dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    x = torch.cat([torch.ones_like(x[:, :1]), x], 1)
    sign = torch.tensor([1.0 if row[-1] == "R" else -1.0 for row in rows], dtype=torch.float64)
    signed = sign.unsqueeze(1) * x
    dim = x.shape[1]

    def log_prob(z: Tensor) -> Tensor:
        prior = -0.5 * z.square().sum(1) - 0.5 * dim * LOG_TAU
        return prior + torch.nn.functional.logsigmoid(z @ signed.T.to(z)).sum(1)

    return Problem(dim, log_prob, log_z=-108.38, log_z_se=0.01)


def lgcp(folder: Path, side: int = 40) -> Problem:
    """A log-Gaussian Cox process of 126 pine saplings on a grid, in whitened coordinates: d = 1600.

    Of its log Z nothing is known here.

    Args:
        folder: with ``finpines.csv``, x and y of each tree in metres, without a header.
        side: cells along each side.

    Reference:
        Møller, Syversveen and Waagepetersen, Log Gaussian Cox processes, 1998.
    """
    with (folder / "finpines.csv").open(encoding="utf-8", newline="") as file:
        trees = torch.tensor([[float(v) for v in row] for row in csv.reader(file)]).double()
    cells = ((trees - trees.new_tensor([-5.0, -8.0])) / 10 * side).long().clamp(0, side - 1)
    counts = torch.bincount(cells @ torch.tensor([side, 1]), minlength=side**2).double()
    variance, reach, area = 1.91, side / 33, 1 / side**2
    places = torch.cartesian_prod(*[torch.arange(side).double()] * 2)
    covariance = variance * (-torch.cdist(places, places) / reach).exp()
    factor = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(side**2).double())
    mean = math.log(len(trees)) - variance / 2

    def log_prob(z: Tensor) -> Tensor:
        x = z @ factor.T.to(z) + mean
        prior = -0.5 * z.square().sum(1) - 0.5 * side**2 * LOG_TAU
        return prior + (counts.to(z) * x - area * x.exp()).sum(1)

    return Problem(side**2, log_prob)


def _log_normal(x: Tensor, log_sd: Tensor) -> Tensor:
    """The log-density of x (n, k) under N(0, exp(2 log_sd)), summed over k; log_sd (n)."""
    n = x.shape[1]
    squares = x.square().sum(1) * (-2 * log_sd).exp()
    return -0.5 * squares - n * log_sd - 0.5 * n * LOG_TAU


LITERATURE: dict[str, Callable[[], Problem]] = {
    "gmm40": gmm40,
    "many_well32": partial(many_well, 32),
    "brownian": brownian,
}
"""Makers of those that need no file."""

FROM_FILES: dict[str, Callable[[Path], Problem]] = {"sonar": sonar, "lgcp": lgcp}
"""Makers of those that read a file in a folder."""
