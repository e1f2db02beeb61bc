"""The four two-dimensional potentials of the normalizing-flow paper, pot1 to pot4.

Each is exp(−U) with U as PyMC3's notebook writes it. Its pot2 to pot4 add 0.1 |z0| to the
potentials of the paper, which are flat along z0 and cannot be normalised there. With that term z0
is Laplace(0, 10) exactly and z1 given z0 a normal or a mixture of two, so log Z and exact draws
are known. Most of that mass lies outside the square [−5, 5]² on which they are usually drawn.

Reference:
    Danilo Rezende and Shakir Mohamed, "Variational Inference with Normalizing Flows", 2015,
    table 1; the constants are those of Maxim Kochurov and the PyMC3 team, "Normalizing Flows
    Overview", 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nfvi.targets import log_density

__all__ = ["POT1_MASS_LEFT", "mass_left", "pot1", "pot2", "pot3", "pot4"]

POT1_MASS_LEFT = 0.5
"""The mass of pot1 left of z0 = 0, that is of its left mode: a half, by symmetry."""

_ROOT_TWO_PI = math.sqrt(2 * math.pi)
_TAIL = 10.0


def mass_left(draws: Tensor) -> float:
    """The share of draws (n, 2) with z0 < 0; for pot1 the exact value is ``POT1_MASS_LEFT``."""
    return (draws[:, 0] < 0).double().mean().item()


def _log_kernel(x: Tensor, scale: float) -> Tensor:
    """−½ (x / scale)², the log of a normal density less its constant."""
    return x.square() * (-0.5 / scale**2)


def _wave(z0: Tensor) -> Tensor:
    """w1 = sin(2π z0 / 4)."""
    return torch.sin((math.pi / 2) * z0)


def _bump(z0: Tensor) -> Tensor:
    """w2 = 3 exp(−½ ((z0 − 1) / 0.6)²)."""
    return 3 * torch.exp(_log_kernel(z0 - 1, 0.6))


def _step(z0: Tensor) -> Tensor:
    """w3 = 3 / (1 + exp(−(z0 − 1) / 0.3))."""
    return 3 * torch.sigmoid((z0 - 1) / 0.3)


def _exponential(
    n: int, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return torch.empty(n, dtype=dtype, device=device).exponential_(generator=generator)


def _coin(n: int, p: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The flips (n,) of a coin: booleans, each true with probability p."""
    return torch.rand(n, generator=generator, device=device, dtype=torch.float64) < p


def _sample_pot1(
    n: int, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Exact draws from pot1, by rejection in polar coordinates.

    The right-hand half of the mixture has the density r exp(−½((r − 2)/0.4)²) e(r cos θ) in
    (r, θ), where e(x) = exp(−½((x − 2)/0.6)²) <= 1. As log r <= log 2 + (r − 2)/2, the first two
    factors lie under a multiple of a normal in r with mean 2 + 0.4²/2, and θ is uniform. The
    left-hand half is the mirror image, of equal mass, so a fair coin gives z0 its sign.
    """
    draws = torch.empty(0, 2, dtype=dtype, device=device)
    while len(draws) < n:
        tries = 8 * (n - len(draws)) + 32
        normal = torch.randn(tries, generator=generator, dtype=dtype, device=device)
        radius = 2 + 0.4**2 / 2 + 0.4 * normal
        turn = torch.rand(tries, generator=generator, dtype=dtype, device=device)
        angle = 2 * math.pi * turn
        x, y = radius * angle.cos(), radius * angle.sin()
        # A radius below 0 has log 0 = -inf here and is refused, as it must be.
        log_accept = torch.log(radius.clamp(min=0) / 2) - (radius - 2) / 2 + _log_kernel(x - 2, 0.6)
        accepted = _exponential(tries, generator, dtype, device) > -log_accept
        x = torch.where(_coin(tries, POT1_MASS_LEFT, generator, device), -x, x)
        draws = torch.cat([draws, torch.stack([x, y], dim=-1)[accepted]])
    return draws[:n]


def _laplace(
    n: int, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Exact draws (n,) of z0 ~ Laplace(0, 10)."""
    size = _TAIL * _exponential(n, generator, dtype, device)
    return torch.where(_coin(n, 0.5, generator, device), -size, size)


def _sample_pot2(
    n: int, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """z1 | z0 ~ N(w1, 0.4)."""
    z0 = _laplace(n, generator, dtype, device)
    noise = torch.randn(n, generator=generator, dtype=dtype, device=device)
    return torch.stack([z0, _wave(z0) + 0.4 * noise], dim=-1)


def _sample_pot3(
    n: int, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """z1 | z0 ~ ½ N(w1, 0.35) + ½ N(w1 − w2, 0.35)."""
    z0 = _laplace(n, generator, dtype, device)
    noise = torch.randn(n, generator=generator, dtype=dtype, device=device)
    upper = _coin(n, 0.5, generator, device)
    z1 = _wave(z0) - torch.where(upper, torch.zeros_like(z0), _bump(z0)) + 0.35 * noise
    return torch.stack([z0, z1], dim=-1)


def _sample_pot4(
    n: int, generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """z1 | z0 ~ (8/15) N(w1, 0.4) + (7/15) N(w1 − w3, 0.35)."""
    z0 = _laplace(n, generator, dtype, device)
    noise = torch.randn(n, generator=generator, dtype=dtype, device=device)
    upper = _coin(n, 0.4 / (0.4 + 0.35), generator, device)
    z1 = _wave(z0) + torch.where(upper, 0.4 * noise, 0.35 * noise - _step(z0))
    return torch.stack([z0, z1], dim=-1)


@log_density(dim=2, log_normalizer=1.8775016261, sampler=_sample_pot1, batched=True)
def pot1(z: Tensor) -> Tensor:
    """Two modes on a ring: U = ½((‖z‖ − 2)/0.4)² − log(e^{−½((z0−2)/0.6)²} + e^{−½((z0+2)/0.6)²}).

    log Z = 1.8775016261, by quadrature; half of the mass lies on each side of z0 = 0.
    """
    z0 = z[:, 0]
    ring = _log_kernel(torch.linalg.vector_norm(z, dim=-1) - 2, 0.4)
    return ring + torch.logaddexp(_log_kernel(z0 - 2, 0.6), _log_kernel(z0 + 2, 0.6))


@log_density(dim=2, log_normalizer=math.log(8 * _ROOT_TWO_PI), sampler=_sample_pot2, batched=True)
def pot2(z: Tensor) -> Tensor:
    """A wave: U = ½((z1 − w1)/0.4)² + 0.1 |z0|, with w1 = sin(π z0 / 2); Z = 8 √(2π)."""
    z0, z1 = z.unbind(-1)
    return _log_kernel(z1 - _wave(z0), 0.4) - z0.abs() / _TAIL


@log_density(dim=2, log_normalizer=math.log(14 * _ROOT_TWO_PI), sampler=_sample_pot3, batched=True)
def pot3(z: Tensor) -> Tensor:
    """A wave with a second branch: U = −log(e^{−½(a/0.35)²} + e^{−½(b/0.35)²}) + 0.1 |z0|.

    Here a = z1 − w1 and b = a + w2, with w2 = 3 exp(−½((z0 − 1)/0.6)²); Z = 14 √(2π).
    """
    z0, z1 = z.unbind(-1)
    above = z1 - _wave(z0)
    below = above + _bump(z0)
    return torch.logaddexp(_log_kernel(above, 0.35), _log_kernel(below, 0.35)) - z0.abs() / _TAIL


@log_density(dim=2, log_normalizer=math.log(15 * _ROOT_TWO_PI), sampler=_sample_pot4, batched=True)
def pot4(z: Tensor) -> Tensor:
    """A wave that forks: U = −log(e^{−½(a/0.4)²} + e^{−½(b/0.35)²}) + 0.1 |z0|.

    Here a = z1 − w1 and b = a + w3, with w3 = 3 / (1 + exp(−(z0 − 1)/0.3)); Z = 15 √(2π).
    """
    z0, z1 = z.unbind(-1)
    above = z1 - _wave(z0)
    below = above + _step(z0)
    return torch.logaddexp(_log_kernel(above, 0.4), _log_kernel(below, 0.35)) - z0.abs() / _TAIL
