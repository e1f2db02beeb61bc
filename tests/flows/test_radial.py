"""Radial flows: the stable log-determinant, the closed-form inverse, degenerate parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from nfvi.flows.radial import Radial


def radial(dim: int, a: float, b: float, dtype: torch.dtype = torch.float64) -> Radial:
    flow = Radial(dim, jitter=0.1, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        flow.a.fill_(a)
        flow.b.fill_(b)
    return flow


def points(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def gradients(flow: Radial, values: tuple[Tensor, Tensor], point: Tensor) -> list[Tensor]:
    return [*torch.autograd.grad(values[0].sum() + values[1].sum(), [point, *flow.parameters()])]


def test_it_is_the_published_map():
    """Rezende and Mohamed, equations 14 and 21, with the Jacobian's determinant as a product."""
    flow, z = radial(5, 0.4, -0.7), points(50, 5)
    alpha = flow.a.exp()
    beta = softplus(flow.b) - alpha
    r = (z - flow.z_ref).norm(dim=-1, keepdim=True)
    h = 1 / (alpha + r)
    x, ladj = flow(z)
    torch.testing.assert_close(x, z + beta * h * (z - flow.z_ref))
    determinant = (1 + beta * h) ** 4 * (1 + beta * h - beta * h**2 * r)
    torch.testing.assert_close(ladj, determinant.log().squeeze(-1))


@pytest.mark.parametrize("b", [-30.0, -3.0, 0.5413, 30.0])
@pytest.mark.parametrize("a", [-100.0, -30.0, 0.0, 30.0])
def test_the_inverse_solves_the_quadratic(a, b):
    """r = ‖z − z₀‖ of the inverse has r (softplus(b) + r) / (α + r) = ‖x − z₀‖."""
    flow, x = radial(3, a, b), points(200, 3)
    z, _ = flow.inverse(x)
    alpha, positive = flow.a.exp(), softplus(flow.b)
    r, r_x = ((p - flow.z_ref).norm(dim=-1) for p in (z, x))
    image = r * (positive + r) / (alpha + r)
    # A relative error eps of r moves the image by at most twice that: its elasticity
    # 1 + r/(s + r) − r/(α + r) lies between 0 and 2. z itself is rounded at the size of z₀.
    eps = torch.finfo(x.dtype).eps
    slope = (r * r + 2 * alpha * r + alpha * positive) / (alpha + r) ** 2
    assert ((image - r_x).abs() <= 32 * eps * (r_x + slope * (1 + r))).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("b", [-300.0, -60.0, 0.0, 60.0, 300.0])
@pytest.mark.parametrize("a", [-300.0, -60.0, 60.0, 300.0])
def test_degenerate_parameters_stay_finite(a, b, dtype):
    """α → 0 and ∞, α + β → 0 and ∞: values and gradients, at z₀ itself too."""
    flow = radial(4, a, b, dtype)
    point = torch.cat([points(20, 4, dtype=dtype), flow.z_ref.detach()[None]]).requires_grad_()
    for function in (flow, flow.inverse):
        values = function(point)
        assert all(v.isfinite().all() for v in (*values, *gradients(flow, values, point)))


def test_alpha_to_zero_is_a_push_along_the_radius():
    """α = 0: f(z) = z + s (z − z₀)/r with s = softplus(b), of determinant (1 + s/r)^(d−1)."""
    flow, z = radial(3, -100.0, 0.5), points(50, 3)
    push, offset = softplus(flow.b), z - flow.z_ref
    r = offset.norm(dim=-1, keepdim=True)
    x, ladj = flow(z)
    torch.testing.assert_close(x, z + push * offset / r)
    torch.testing.assert_close(ladj, 2 * (push / r).log1p().squeeze(-1))
    torch.testing.assert_close(flow.inverse(x)[0], z)


@pytest.mark.parametrize("b", [-20.0, 0.0, 200.0])
def test_a_thousand_dimensions_in_float32(b):
    """(1 + βh)^(d−1) itself would leave float32's range; its logarithm is right to rounding."""
    single, double = radial(1000, 0.0, b, torch.float32), radial(1000, 0.0, b)
    double.load_state_dict(single.state_dict())
    z = points(20, 1000, dtype=torch.float32)
    got, expected = single(z)[1], double(z.double())[1]
    # 999 times the rounding of a logarithm whose argument is within eps · (1 + β h).
    eps = torch.finfo(torch.float32).eps
    assert ((got - expected).abs() <= 4 * eps * (1000 + expected.abs())).all()
    assert b < 200 or expected.min() > math.log(torch.finfo(torch.float32).max)


def test_one_dimension_moves_half_lines():
    """On R the factor (1 + βh)^(d−1) is 1, and the map keeps the order of points."""
    flow = radial(1, 0.3, -2.0)
    z = torch.linspace(-5, 5, 401, dtype=torch.float64)[:, None]
    x, ladj = flow(z)
    assert (x.diff(dim=0) > 0).all()
    slope = torch.autograd.functional.jacobian(lambda z: flow(z)[0].sum(), z)
    torch.testing.assert_close(ladj, slope.squeeze(-1).log())
    far = flow(torch.tensor([[1e9]], dtype=torch.float64))[1].item()
    assert math.isclose(far, 0.0, abs_tol=1e-8)
