"""Affine coupling: what it contains, and its bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nfvi.flows import lookup
from nfvi.flows.realnvp import RealNVP

F64 = torch.float64


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def linear(weight: Tensor, bias: Tensor, dim: int = 4) -> RealNVP:
    """Without hidden layers: shift and raw log-scale of each coordinate, affine in z_A."""
    flow = RealNVP(dim, hidden=[], dtype=F64)
    with torch.no_grad():
        (layer,) = flow.conditioner.linears
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return flow


def test_it_is_the_published_map():
    """x_B = z_B exp(a(z_A)) + m(z_A), for any network: here taken from the layer itself."""
    flow = RealNVP(5, jitter=0.5, dtype=F64, generator=torch.Generator().manual_seed(0))
    z = normal(20, 5)
    shift, raw = flow.conditioner(z[:, :2]).unflatten(-1, (3, 2)).unbind(-1)
    log_scale = 4 * (raw / 4).tanh()
    x, ladj = flow(z)
    torch.testing.assert_close(x, torch.cat([z[:, :2], z[:, 2:] * log_scale.exp() + shift], -1))
    torch.testing.assert_close(ladj, log_scale.sum(-1))
    back, ladj_back = flow.inverse(x)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(ladj_back, -ladj)


def test_it_contains_affine_maps():
    """A regression of the second half on the first: x_B = D z_B + M z_A + b, D positive."""
    matrix, shift = normal(2, 2), normal(2, seed=2)
    log_scale = torch.tensor([1.5, -2.0], dtype=F64)
    raw = 4 * (log_scale / 4).atanh()
    weight = torch.stack([matrix, torch.zeros_like(matrix)], 1).flatten(0, 1)
    flow = linear(weight, torch.stack([shift, raw], -1).flatten())
    z = normal(30, 4)
    x, ladj = flow(z)
    expected = z[:, 2:] * log_scale.exp() + z[:, :2] @ matrix.T + shift
    torch.testing.assert_close(x, torch.cat([z[:, :2], expected], -1))
    torch.testing.assert_close(ladj, torch.full((30,), -0.5, dtype=F64))


@pytest.mark.parametrize("bound", [0.5, 4.0, 20.0])
def test_the_log_scale_stays_within_the_bound(bound):
    flow = RealNVP(2, hidden=[], bound=bound, dtype=F64)
    for bias, expected in ((1e6, bound), (-1e6, -bound), (0.0, 0.0)):
        with torch.no_grad():
            flow.conditioner.linears[0].weight.zero_()
            flow.conditioner.linears[0].bias.copy_(torch.tensor([0.0, bias], dtype=F64))
        x, ladj = flow(torch.ones(1, 2, dtype=F64))
        assert math.isclose(ladj.item(), expected)
        assert math.isclose(x[0, 1].item(), math.exp(expected))


@pytest.mark.parametrize("bound", [0, -1, 20.5, math.nan, math.inf, True, "4"])
def test_a_wrong_bound_is_refused(bound):
    with pytest.raises(ValueError, match="bound="):
        RealNVP(2, bound=bound)


def test_coupling_is_another_name_for_it():
    assert lookup("coupling").cls is RealNVP
