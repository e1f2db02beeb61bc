"""Spline coupling: the spline that the network sets, and its options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi.flows.nsf import NeuralSpline
from nfvi.flows.spline import Spline

F64 = torch.float64


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def make(dim: int, **options: object) -> NeuralSpline:
    generator = torch.Generator().manual_seed(0)
    return NeuralSpline(dim, **{"jitter": 0.5, "generator": generator, "dtype": F64} | options)


@pytest.mark.parametrize("bins", [1, 6])
@pytest.mark.parametrize("bound", [1.0, 5.0])
def test_each_moved_coordinate_goes_through_the_spline_that_the_network_sets(bins, bound):
    flow, z = make(5, bins=bins, bound=bound), normal(6, 5)
    x, ladj = flow(z)
    elementwise = Spline(3, bins=bins, bound=bound, dtype=F64)
    for i in range(6):
        with torch.no_grad():
            raw = flow.conditioner(z[i, :2]).unflatten(-1, elementwise.raw.shape)
            elementwise.raw.copy_(raw)
        torch.testing.assert_close((x[i, 2:], ladj[i]), elementwise(z[i, 2:]))
        back, ladj_back = flow.inverse(x[i])
        torch.testing.assert_close((back[2:], ladj_back), elementwise.inverse(x[i, 2:]))


def test_far_out_it_is_affine_in_what_it_moves():
    flow = make(2)
    z = torch.tensor([[0.4, 1e2], [0.4, 2e2], [0.4, 3e2]], dtype=F64)
    x, ladj = flow(z)
    assert abs(x[:, 1].diff().diff()) < 1e-10
    torch.testing.assert_close(x[:, 1].diff() / 100, ladj[1:].exp())


@pytest.mark.parametrize("bins", [0, 257, 2.5, "8"])
def test_wrong_bins_are_refused(bins):
    with pytest.raises(ValueError, match="bins="):
        make(2, bins=bins)


@pytest.mark.parametrize("bound", [0, -3.0, "3"])
def test_a_wrong_bound_is_refused(bound):
    with pytest.raises(ValueError, match="bound="):
        make(2, bound=bound)
