"""Sinh-arcsinh: closed forms, symmetry, tails, values that powers would throw out of range."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nfvi.flows.sinh_arcsinh import MOST_LOG_TAIL, MOST_SKEW, SinhArcsinh

F64 = torch.float64
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(skew: float, delta: float, dim: int = 1, dtype: torch.dtype = F64) -> SinhArcsinh:
    """The flow with ε = ``skew`` and δ = ``delta`` in each coordinate."""
    flow = SinhArcsinh(dim, jitter=0.0, dtype=dtype)
    with torch.no_grad():
        flow.raw[0] = MOST_SKEW * math.atanh(skew / MOST_SKEW)
        flow.raw[1] = MOST_LOG_TAIL * math.atanh(-math.log(delta) / MOST_LOG_TAIL)
    return flow


@pytest.mark.parametrize("skew", [-2.0, 0.0, 0.7])
@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_it_is_the_published_map(skew, delta):
    """Jones and Pewsey: z = sinh(δ asinh(x) − ε) is standard normal for their x."""
    flow, x = make(skew, delta, 3), normal(40, 3)
    z, ladj = flow.inverse(x)
    w = delta * x.asinh() - skew
    torch.testing.assert_close(z, w.sinh())
    density = delta * w.cosh() / (1 + x**2).sqrt()
    torch.testing.assert_close(ladj, density.log().sum(-1))
    again, ladj_again = flow(z)
    torch.testing.assert_close(again, x)
    torch.testing.assert_close(ladj_again, -ladj)


def test_special_cases():
    """ε = 0: δ = 1 is the identity, δ = 1/2 is 2 z √(1 + z²) and δ = 1/3 is 3 z + 4 z³."""
    z = normal(50, 1)
    torch.testing.assert_close(make(0.0, 1.0)(z)[0], z)
    torch.testing.assert_close(make(0.0, 0.5)(z)[0], 2 * z * (1 + z**2).sqrt())
    x, ladj = make(0.0, 1 / 3)(z)
    torch.testing.assert_close(x, 3 * z + 4 * z**3)
    torch.testing.assert_close(ladj, (3 + 12 * z**2).log().squeeze(-1))


@pytest.mark.parametrize("delta", [0.4, 1.0, 3.0])
def test_without_skew_it_is_odd_and_with_opposite_skew_mirrored(delta):
    z = normal(50, 1)
    straight = make(0.0, delta)
    torch.testing.assert_close(straight(-z)[0], -straight(z)[0])
    torch.testing.assert_close(straight(-z)[1], straight(z)[1])
    right, left = make(1.2, delta), make(-1.2, delta)
    torch.testing.assert_close(left(-z)[0], -right(z)[0])


@pytest.mark.parametrize("delta", [0.4, 1.0, 3.0])
def test_tails_are_powers(delta):
    """|x| grows like |z|^(1/δ): its elasticity there is 1/δ, to 1/z²."""
    flow = make(0.5, delta)
    for sign in (1.0, -1.0):
        z = sign * torch.tensor([[1e6], [1e7]], dtype=F64)
        x = flow(z)[0].abs()
        assert math.isclose((x[1] / x[0]).log10().item(), 1 / delta, rel_tol=1e-3)


def test_skew_moves_the_median_and_keeps_the_order():
    z = torch.linspace(-4, 4, 101, dtype=F64)[:, None]
    assert math.isclose(make(0.8, 1.0)(torch.zeros(1, 1, dtype=F64))[0].item(), math.sinh(0.8))
    for skew in (-3.0, 3.0):
        assert (make(skew, 0.5)(z)[0].diff(dim=0) > 0).all()


@each_dtype
@pytest.mark.parametrize("raw", [[1e4, 1e4], [-1e4, 1e4], [1e4, -1e4], [-1e4, -1e4]])
def test_the_largest_parameters_and_points_at_once(raw, dtype):
    """Three layers of the heaviest tails, from 0 to the largest floats: all finite."""
    flow = SinhArcsinh(1, dtype=dtype)
    with torch.no_grad():
        flow.raw.copy_(torch.tensor(raw)[:, None])
    top = torch.finfo(dtype).max ** 0.9
    z = torch.tensor([[0.0], [1.0], [-1e6], [1e6], [-top], [top]], dtype=dtype)
    for run in (SinhArcsinh.forward_run, SinhArcsinh.inverse_run):
        point = z.clone().requires_grad_()
        x, ladj = run([flow] * 3, point)
        grads = torch.autograd.grad(x.sum() / top + ladj.sum(), [point, flow.raw])
        assert all(v.isfinite().all() for v in (x, ladj, *grads))


@each_dtype
def test_beyond_the_0_4th_power_of_the_largest_float_it_is_a_tangent(dtype):
    """Continuous with its slope, linear beyond, and still undone by the inverse."""
    flow = make(0.0, 0.5, dtype=dtype)
    limit = torch.finfo(dtype).max ** 0.4
    # x = 2 z √(1 + z²) arrives at the limit for z = √(limit/2); its slope is 4 z there.
    edge = math.sqrt(limit / 2)
    z = torch.tensor([[edge * f] for f in (0.999, 1.001, 2.0, 3.0, 4.0)], dtype=dtype)
    x, ladj = flow(z)
    assert math.isclose((x[1] - x[0]).item() / (z[1] - z[0]).item(), 4 * edge, rel_tol=0.01)
    assert math.isclose(ladj[1].item() - ladj[0].item(), 0.0, abs_tol=0.01)
    torch.testing.assert_close(flow.inverse(x)[0], z, rtol=1e-4, atol=0)
    slopes = torch.func.vmap(torch.func.grad(lambda z: flow(z)[0].sum()))(z).squeeze(-1)
    torch.testing.assert_close(slopes.log(), ladj, rtol=1e-4, atol=1e-4)


def test_a_context_moves_skew_and_tails():
    """For each context the map is that of a flow whose raw values are what the network makes."""
    common = {"jitter": 0.5, "generator": torch.Generator().manual_seed(0), "dtype": F64}
    flow, plain = SinhArcsinh(3, context_dim=2, **common), SinhArcsinh(3, **common)
    z, context = normal(6, 3), normal(6, 2, seed=2)
    x, ladj = flow(z, context)
    for i in range(6):
        with torch.no_grad():
            moved = flow.network(context[i]).unflatten(-1, (2, 3))
            assert moved.abs().min() > 0
            plain.raw.copy_(flow.raw + moved)
        torch.testing.assert_close((x[i], ladj[i]), plain(z[i]))
        torch.testing.assert_close(flow.inverse(x[i], context=context[i]), plain.inverse(x[i]))
