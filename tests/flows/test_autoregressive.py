"""Masked and inverse autoregressive flows, and what autoregressive flows share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from nfvi.flows import Flow, lookup

FAMILIES = ["iaf", "maf", "monotone"]
each_family = pytest.mark.parametrize("name", FAMILIES)


def make(name: str, dim: int, **options: object) -> Flow:
    generator = torch.Generator().manual_seed(0)
    start = {"jitter": 0.5, "generator": generator, "dtype": torch.float64}
    return lookup(name).cls(dim, **start | options)


def points(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@each_family
@pytest.mark.parametrize(
    ("options", "upper"),
    [({"index": 0}, False), ({"index": 1}, True), ({"index": 1, "alternate": False}, False)],
)
def test_the_jacobian_is_triangular_in_the_order_of_the_layer(name, options, upper):
    flow = make(name, 4, **options)
    full = jacobian(lambda z: flow(z)[0], points(4), vectorize=True)
    other = full.tril(-1) if upper else full.triu(1)
    assert (other.abs() < 1e-12).all()
    assert (full.diagonal() > 0).all()


def test_maf_is_iaf_turned_round():
    """With the same parameters, one's density direction is the other's sampling direction."""
    iaf, maf = make("iaf", 3), make("maf", 3)
    maf.load_state_dict(iaf.state_dict())
    z = points(5, 3)
    torch.testing.assert_close(maf.inverse(z), iaf(z), rtol=0, atol=0)
    torch.testing.assert_close(maf(z), iaf.inverse(z), rtol=0, atol=0)


def test_a_network_without_hidden_layers_is_a_gaussian():
    """iaf(hidden=[]) with constant scales is x = exp(a) z + L z + m: check against the matrix."""
    flow = make("iaf", 3, hidden=[])
    weight = flow.conditioner.linears[0].weight.detach().view(3, 2, 3)
    weight[:, 1] = 0  # scales from the bias alone
    shift, raw = flow.conditioner.linears[0].bias.view(3, 2).unbind(1)
    matrix = weight[:, 0].tril(-1) + torch.diag((4 * (raw / 4).tanh()).exp())
    z = points(6, 3)
    x, ladj = flow(z)
    torch.testing.assert_close(x, z @ matrix.T + shift)
    torch.testing.assert_close(ladj, torch.linalg.slogdet(matrix).logabsdet.expand(6))


@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_the_bound_bounds_the_scale(bound):
    flow = make("iaf", 3, bound=bound, jitter=100.0)
    _, ladj = flow(points(50, 3))
    assert (ladj.abs() <= 3 * bound).all()
    assert ladj.abs().max() > 0.9 * bound


@each_family
def test_in_one_dimension_there_is_no_network(name):
    flow = make(name, 1)
    assert [p.numel() for p in flow.parameters()][1:] == [flow.size]
    assert flow.conditioner.linears[0].mask.sum() == 0


@each_family
def test_the_context_reaches_the_first_coordinate(name):
    flow = make(name, 3, context_dim=1)
    z, contexts = points(3), torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    first = [flow(z, c)[0][0] for c in contexts]
    assert abs(first[0] - first[1]) > 1e-6


@pytest.mark.parametrize("name", ["maf", "iaf"])
@pytest.mark.parametrize("bound", [0.0, -1.0, 21.0, math.nan, math.inf, True])
def test_a_wrong_bound_is_refused(name, bound):
    with pytest.raises(ValueError, match="bound="):
        make(name, 2, bound=bound)
