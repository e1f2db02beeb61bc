"""Targets whose log Z, means and sds are closed forms, or integrals over one variable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.multimodal.problem import Modes, Moments, Problem

__all__ = ["banana", "funnel", "gaussian_mixture", "independent", "radial", "sine_ridge"]

LOG_TAU = math.log(math.tau)
NODES = 1_200_001
"""Of an integral over one variable: 200 in the sd of the narrowest part, 0.02 in (−12, 12)."""

Number = float | Sequence[float]
Curve = Callable[[Tensor], Tensor]


def gaussian_mixture(
    dim: int, weights: Sequence[float], locs: Sequence[Number], sds: Sequence[Number]
) -> Problem:
    """Σ_k π_k N(z; m_k, diag s_k²), with log Z = 0.

    Args:
        dim: d.
        weights: π (K); divided by their sum.
        locs: m_k, each (d) or one number for all coordinates.
        sds: s_k, likewise.
    """
    share = _row(weights) / sum(weights)
    loc, sd = (torch.stack([_row(x).expand(dim) for x in values]) for values in (locs, sds))

    def components(z: Tensor) -> Tensor:
        white = (z.unsqueeze(1) - loc.to(z)) / sd.to(z)
        constant = share.log() - sd.log().sum(1) - 0.5 * dim * LOG_TAU
        return constant.to(z) - 0.5 * white.square().sum(-1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        which = torch.multinomial(share, n, replacement=True, generator=generator)
        return loc[which] + sd[which] * _noise(n, dim, generator)

    mean = share @ loc
    variance = share @ (sd.square() + (loc - mean).square())
    return Problem(
        dim,
        lambda z: components(z).logsumexp(1),
        log_z=0.0,
        moments=Moments(mean, variance.sqrt()),
        modes=Modes(share.unsqueeze(0), lambda z: components(z).softmax(1).unsqueeze(1)),
        sample=sample,
    )


def independent(
    dim: int, log_p: Curve, low: float, high: float, parts: Sequence[Curve] = ()
) -> Problem:
    """log p(z) = Σ_i g(z_i), with what is known of g by an integral from ``low`` to ``high``.

    Args:
        dim: d.
        log_p: g.
        low: below it g has no mass.
        high: nor above it.
        parts: log-densities g_k with exp g = Σ_k exp g_k, whose masses are those of the modes.
    """
    grid = torch.linspace(low, high, NODES, dtype=torch.float64)
    values = log_p(grid)
    log_z = _log_integral(values, grid)
    p = (values - log_z).exp()
    mean = torch.trapezoid(p * grid, grid)
    variance = torch.trapezoid(p * (grid - mean).square(), grid)
    draw = _inverse_cdf(p, grid)
    return Problem(
        dim,
        lambda z: log_p(z).sum(1),
        log_z=dim * log_z,
        moments=Moments(mean.expand(dim), variance.sqrt().expand(dim)),
        modes=_coordinate_modes(dim, parts, grid) if parts else None,
        sample=lambda n, generator: draw(_uniform(n, dim, generator)),
    )


def radial(dim: int, log_p: Curve, high: float, parts: Sequence[Curve] = ()) -> Problem:
    """log p(z) = g(|z|), with what is known of g by an integral over |z| from 0 to ``high``.

    Args:
        dim: d.
        log_p: g.
        high: above it g has no mass.
        parts: as for :func:`independent`.
    """
    grid = torch.linspace(high * 1e-9, high, NODES, dtype=torch.float64)
    volume = (dim - 1) * grid.log()
    sphere = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(dim / 2)
    values = log_p(grid) + volume
    log_integral = _log_integral(values, grid)
    p = (values - log_integral).exp()
    sd = (torch.trapezoid(p * grid.square(), grid) / dim).sqrt()
    draw = _inverse_cdf(p, grid)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        direction = torch.nn.functional.normalize(_noise(n, dim, generator), dim=1)
        return draw(_uniform(n, 1, generator)) * direction

    modes = None
    if parts:
        masses = _masses(parts, grid, volume)
        modes = Modes(masses, lambda z: _shares(parts, _length(z)).unsqueeze(1))
    return Problem(
        dim,
        lambda z: log_p(_length(z)),
        log_z=log_integral + sphere,
        moments=Moments(torch.zeros(dim).double(), sd.expand(dim)),
        modes=modes,
        sample=sample,
    )


def banana(bend: float, wide: float = 10.0, narrow: float = 1.0) -> Problem:
    """z₀ ~ N(0, wide²) and z₁ ~ N(bend (z₀² − wide²), narrow²); log Z = 0.

    Reference:
        Haario, Saksman and Tamminen, An adaptive Metropolis algorithm, 2001.
    """
    sd = math.hypot(math.sqrt(2) * bend * wide**2, narrow)
    return _ridge(wide, narrow, lambda x: bend * (x.square() - wide**2), sd)


def sine_ridge(frequency: float, narrow: float) -> Problem:
    """z₀ ~ N(0, 1) and z₁ ~ N(2 sin(frequency z₀), narrow²); log Z = 0."""
    sd = math.sqrt(2 * -math.expm1(-2 * frequency**2) + narrow**2)
    return _ridge(1.0, narrow, lambda x: 2 * (frequency * x).sin(), sd)


def funnel(dim: int, sd: float) -> Problem:
    """z₀ ~ N(0, sd²), the others N(0, e^z₀); log Z = 0.

    Only z₀ is compared: the sd of the others is an average over tails that few draws meet.

    Reference:
        Neal, Slice sampling, 2003.
    """

    def log_prob(z: Tensor) -> Tensor:
        v, x = z[:, :1], z[:, 1:]
        neck = _log_normal(v[:, 0], 0.0, sd)
        rest = -0.5 * x.square() * (-v).exp() - 0.5 * v - 0.5 * LOG_TAU
        return neck + rest.sum(1)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        noise = _noise(n, dim, generator)
        v = sd * noise[:, :1]
        return torch.cat([v, noise[:, 1:] * (0.5 * v).exp()], 1)

    known = torch.full((dim,), math.nan, dtype=torch.float64)
    mean, spread = known.clone(), known.clone()
    mean[0], spread[0] = 0.0, sd
    return Problem(dim, log_prob, log_z=0.0, moments=Moments(mean, spread), sample=sample)


def _ridge(wide: float, narrow: float, middle: Curve, sd: float) -> Problem:
    """z₀ ~ N(0, wide²) and z₁ ~ N(middle(z₀), narrow²), where the middle has the mean 0."""

    def log_prob(z: Tensor) -> Tensor:
        off = z[:, 1] - middle(z[:, 0])
        return _log_normal(z[:, 0], 0.0, wide) + _log_normal(off, 0.0, narrow)

    def sample(n: int, generator: torch.Generator) -> Tensor:
        x, y = _noise(n, 2, generator).unbind(1)
        return torch.stack([wide * x, middle(wide * x) + narrow * y], 1)

    moments = Moments(_row([0.0, 0.0]), _row([wide, sd]))
    return Problem(2, log_prob, log_z=0.0, moments=moments, sample=sample)


def _log_normal(x: Tensor, mean: float, sd: float) -> Tensor:
    return -0.5 * ((x - mean) / sd).square() - math.log(sd) - 0.5 * LOG_TAU


def _row(values: Number) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _noise(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def _uniform(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, dim, generator=generator, dtype=torch.float64)


def _length(z: Tensor) -> Tensor:
    """|z| (n), with a gradient at 0 too."""
    return (z.square().sum(1) + 1e-12).sqrt()


def _log_integral(values: Tensor, grid: Tensor) -> float:
    top = values.max()
    return float(top + torch.trapezoid((values - top).exp(), grid).log())


def _inverse_cdf(p: Tensor, grid: Tensor) -> Curve:
    """From uniform numbers to draws of the density p on a grid."""
    cdf = torch.cat([p.new_zeros(1), torch.cumulative_trapezoid(p, grid)])
    cdf = cdf / cdf[-1]

    def draw(u: Tensor) -> Tensor:
        right = torch.searchsorted(cdf, u.contiguous()).clamp(1, len(grid) - 1)
        part = (u - cdf[right - 1]) / (cdf[right] - cdf[right - 1])
        return grid[right - 1] + part * (grid[right] - grid[right - 1])

    return draw


def _masses(parts: Sequence[Curve], grid: Tensor, volume: Tensor | float = 0.0) -> Tensor:
    """The mass of each part over that of all (1, K)."""
    log_masses = [_log_integral(part(grid) + volume, grid) for part in parts]
    return torch.tensor([log_masses], dtype=torch.float64).softmax(1)


def _shares(parts: Sequence[Curve], x: Tensor) -> Tensor:
    """The probability of each part at x (\\*): (\\*, K)."""
    return torch.stack([part(x) for part in parts], -1).softmax(-1)


def _coordinate_modes(dim: int, parts: Sequence[Curve], grid: Tensor) -> Modes:
    return Modes(_masses(parts, grid).expand(dim, -1), lambda z: _shares(parts, z))
