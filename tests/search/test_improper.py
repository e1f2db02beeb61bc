"""Targets without finite mass along a line, and proper ones that look like it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, LogDensity
from nfvi.search import search_mass
from nfvi.starts import gaussian_guide


def ridge(z: Tensor) -> Tensor:
    """Only the difference of two coordinates is known."""
    return -0.5 * (z[..., 0] - z[..., 1]) ** 2 - 0.5 * z[..., 2:].square().sum(-1)


def waves(z: Tensor) -> Tensor:
    """Modes without end."""
    return torch.cos(z[..., 0]) - 0.5 * z[..., 1:].square().sum(-1)


def half(z: Tensor) -> Tensor:
    """Flat to one side only."""
    return -0.5 * z[..., 0].clamp_max(0).square() - 0.5 * z[..., 1:].square().sum(-1)


def ring(z: Tensor) -> Tensor:
    return -0.5 * ((z.norm(dim=-1) - 5) / 0.1) ** 2


def box(z: Tensor) -> Tensor:
    return -((z / 3) ** 20).sum(-1)


def cauchy(z: Tensor) -> Tensor:
    return -torch.log1p(z.square()).sum(-1)


def long_ridge(z: Tensor) -> Tensor:
    """Proper: the sum has an sd of 1 000, a thousand times that of the difference."""
    along, across = z[..., 0] + z[..., 1], z[..., 0] - z[..., 1]
    return -0.5 * (along / 1_000) ** 2 - 0.5 * across**2 - 0.5 * z[..., 2:].square().sum(-1)


def two_modes(z: Tensor) -> Tensor:
    far = torch.logaddexp(-0.5 * (z[..., 0] - 9) ** 2, -0.5 * (z[..., 0] + 9) ** 2)
    return far - 0.5 * z[..., 1:].square().sum(-1)


def heavy_modes(z: Tensor) -> Tensor:
    """Two equal modes, whose tails are so flat that ascents from far out stay there, far lower."""
    sides = [-torch.log1p((z[..., 0] - x).square()) for x in (-9.0, 9.0)]
    return torch.logaddexp(*sides) - 0.5 * z[..., 1:].square().sum(-1)


def searched(log_p: Callable[[Tensor], Tensor], dtype: torch.dtype):
    guide = gaussian_guide(torch.zeros(3), torch.eye(3), dtype)
    generator = torch.Generator().manual_seed(0)
    return search_mass(guide, LogDensity(log_p, 3, batched=True), 0.0, generator, draws=20_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("log_p", [ridge, waves, half])
def test_improper(log_p, dtype):
    found = searched(log_p, dtype)
    assert found.improper and not found.clean
    assert "the target is improper" in str(found) and len(str(found).splitlines()) <= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("log_p", [ring, box, cauchy, long_ridge, two_modes, heavy_modes])
def test_proper(log_p, dtype):
    found = searched(log_p, dtype)
    assert not found.improper and "improper" not in str(found)


def test_a_climb_ends_there_and_says_so():
    fit = NFVI("auto", seed=1).fit(LogDensity(ridge, 2), progress=False)
    assert fit.verdict.word == "not to be trusted"
    assert "the target is improper" in str(fit.verdict)
    assert "the sum or the difference" in str(fit.verdict)
    text = " ".join(str(fit).split())
    assert "heavier tails" not in text and "Ended: the target is improper" in text
