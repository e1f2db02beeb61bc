"""Element-wise splines: coordinates apart, options, context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi.flows.spline import Spline

F64 = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=F64)


def make(dim: int, **options: object) -> Spline:
    return Spline(dim, **{"jitter": 1.0, "generator": seeded(0), "dtype": F64} | options)


def test_each_coordinate_has_a_spline_of_its_own():
    flow, z = make(4), normal(30, 4)
    x, ladj = flow(z)
    total = torch.zeros_like(ladj)
    for i in range(4):
        one = make(1)
        with torch.no_grad():
            one.raw.copy_(flow.raw[i : i + 1])
        column, part = one(z[:, i : i + 1])
        torch.testing.assert_close(x[:, i : i + 1], column)
        total = total + part
    torch.testing.assert_close(ladj, total)


@pytest.mark.parametrize("bins", [1, 5, 12])
def test_bins_act(bins):
    flow = make(3, bins=bins)
    assert flow.raw.shape == (3, 3 * bins + 2)
    z = normal(20, 3)
    torch.testing.assert_close(flow.inverse(flow(z)[0])[0], z, rtol=1e-9, atol=1e-9)


def test_the_bound_acts():
    """Outside the box the map is linear, inside it bends."""
    narrow, wide = make(1, bound=0.5), make(1, bound=30.0)
    points = torch.tensor([[2.0], [3.0], [4.0]], dtype=F64)
    bends = [flow(points)[0].diff(dim=0).diff(dim=0).abs().item() for flow in (narrow, wide)]
    assert bends[0] < 1e-12 < 1e-6 < bends[1]


def test_a_context_moves_the_raw_parameters():
    """For each context the map is that of a flow whose parameters are what the network makes."""
    flow, z, context = make(3, context_dim=2, bins=4), normal(6, 3), normal(6, 2, seed=2)
    x, ladj = flow(z, context)
    plain = make(3, bins=4)
    for i in range(6):
        with torch.no_grad():
            moved = flow.network(context[i]).unflatten(-1, (3, 14))
            assert moved.abs().min() > 0
            plain.raw.copy_(flow.raw + moved)
        torch.testing.assert_close((x[i], ladj[i]), plain(z[i]))
        torch.testing.assert_close(flow.inverse(x[i], context=context[i]), plain.inverse(x[i]))
    assert not torch.allclose(flow(z, context.roll(1, 0))[0], x)


def test_a_missing_context_is_refused():
    with pytest.raises(ValueError, match="context"):
        make(3, context_dim=2)(normal(6, 3))


def test_it_learns_a_marginal():
    """A two-part mixture's quantile function: what no affine map of the normal reaches."""
    flow = make(1, jitter=0.0, bins=8)
    z = torch.linspace(-2.5, 2.5, 201, dtype=F64)[:, None]
    target = z + 1.5 * torch.tanh(4 * z)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (flow(z)[0] - target).square().mean()
        loss.backward()
        optimizer.step()
    # The best affine map leaves a mean square of 0.14.
    assert loss.item() < 1e-3
