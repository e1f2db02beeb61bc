"""The rational-quadratic spline: against the published formula, on its knots, out of range."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from nfvi.flows.numerics.rational_quadratic import _Bin, _quotient, _solve
from nfvi.flows.spline import Spline

F64 = torch.float64
each_bins = pytest.mark.parametrize("bins", [1, 2, 8])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spline(bins: int, bound: float = 3.0, dtype: torch.dtype = F64):
    """Functions x, raw -> y, log slope in both directions."""
    module = Spline(1, bins=bins, bound=bound, dtype=dtype).spline
    return module.forward, module.inverse


def knots(raw: Tensor, bins: int, bound: float = 3.0) -> tuple[list[float], ...]:
    """Knots on both axes and slopes there, step by step from one spline's raw parameters (P)."""
    raws = raw.tolist()
    # softplus with base 2: B = least + (bound − least) · log2(1 + 2^(r / (bound − least)))
    scale = bound * (1 - 1e-3)
    half = 1e-3 * bound + scale * math.log2(1 + 2 ** (raws[-1] / scale))
    axes = []
    for part in (raws[:bins], raws[bins : 2 * bins]):
        total, position, points = sum(map(math.exp, part)), 0.0, [-half]
        for value in part:
            position += 1e-3 + (1 - 1e-3 * bins) * math.exp(value) / total
            points.append(half * (2 * position - 1))
        axes.append(points)
    reach = math.log(1000)
    slopes = [math.exp(reach * math.tanh(r / reach)) for r in raws[2 * bins : -1]]
    return *axes, slopes


def slowly(x: float, xs: list[float], ys: list[float], slopes: list[float]) -> tuple[float, float]:
    """Durkan et al., equations 4 and 5, one point at a time; and linear tails."""
    if x < xs[0]:
        return ys[0] + slopes[0] * (x - xs[0]), slopes[0]
    if x >= xs[-1]:
        return ys[-1] + slopes[-1] * (x - xs[-1]), slopes[-1]
    k = max(i for i in range(len(xs) - 1) if xs[i] <= x)
    width, height = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
    s, xi = height / width, (x - xs[k]) / width
    left, right = slopes[k], slopes[k + 1]
    below = s + (right + left - 2 * s) * xi * (1 - xi)
    y = ys[k] + height * (s * xi**2 + left * xi * (1 - xi)) / below
    above = s**2 * (right * xi**2 + 2 * s * xi * (1 - xi) + left * (1 - xi) ** 2)
    return y, above / below**2


@each_bins
def test_it_is_the_published_spline(bins):
    forward, inverse = spline(bins)
    for seed in range(10):
        raw = normal(3 * bins + 2, seed=seed)
        x = torch.linspace(-8, 8, 161, dtype=F64)
        expected = torch.tensor([slowly(v, *knots(raw, bins)) for v in x.tolist()], dtype=F64)
        y, log_slope = forward(x, raw)
        torch.testing.assert_close(y, expected[:, 0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_slope, expected[:, 1].log(), rtol=1e-10, atol=1e-10)
        again, log_slope_back = inverse(expected[:, 0], raw)
        torch.testing.assert_close(again, x, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(log_slope_back, -expected[:, 1].log(), rtol=1e-9, atol=1e-9)


@each_bins
@each_dtype
def test_it_goes_through_its_knots_with_their_slopes(bins, dtype):
    """Also just beside a knot, so that the slope is continuous; with autograd's slope as well."""
    forward, inverse = spline(bins, dtype=dtype)
    raw = normal(3 * bins + 2, seed=3, dtype=torch.float32).to(dtype)
    xs, ys, slopes = (torch.tensor(v, dtype=dtype) for v in knots(raw.double(), bins))
    # Slopes change across a bin by up to some ten times, over widths above 0.01 · 6.
    rtol, step = (1e-3, 1e-6) if dtype == torch.float32 else (1e-6, 1e-9)
    for side in (-step, 0.0, step):
        y, log_slope = forward(xs + side, raw)
        torch.testing.assert_close(y, ys, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_slope.exp(), slopes, rtol=rtol, atol=0)
        by_autograd = vmap(grad(lambda x: forward(x, raw)[0]))(xs + side)
        torch.testing.assert_close(by_autograd, slopes, rtol=rtol, atol=0)
        x, log_slope = inverse(ys + side, raw)
        torch.testing.assert_close(x, xs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_slope.exp(), 1 / slopes, rtol=rtol, atol=0)
        by_autograd = vmap(grad(lambda y: inverse(y, raw)[0]))(ys + side)
        torch.testing.assert_close(by_autograd, 1 / slopes, rtol=rtol, atol=0)


@each_bins
@each_dtype
def test_the_ends_of_the_box_have_a_derivative(bins, dtype):
    """Just there, the derivatives of what is cut at them and of what is cut off change over."""
    module = Spline(1, bins=bins, dtype=dtype).spline
    raw = normal(3 * bins + 2, seed=3, dtype=torch.float32).to(dtype)
    ends = module._table(raw)[1] * torch.tensor([-1, 1], dtype=dtype)
    for function in (module.forward, module.inverse):
        _, log_slope = function(ends, raw)
        by_autograd = vmap(grad(lambda x, function=function: function(x, raw)[0]))(ends)
        torch.testing.assert_close(by_autograd, log_slope.exp())


@each_bins
@each_dtype
@pytest.mark.parametrize("bound", [0.01, 3.0, 1e4])
def test_raw_zeros_are_the_identity(bins, dtype, bound):
    x = torch.cat([normal(50, dtype=dtype), torch.tensor([0, -bound, bound, 1e6, -1e6])]).to(dtype)
    for function in spline(bins, bound, dtype):
        y, log_slope = function(x, torch.zeros(3 * bins + 2, dtype=dtype))
        # Positions in the box are rounded at its own size.
        eps = torch.finfo(dtype).eps
        assert ((y - x).abs() <= 8 * eps * (x.abs() + bound)).all()
        assert (log_slope.abs() <= 32 * eps).all()


@each_dtype
def test_tails_are_linear(dtype):
    """With the slopes at the ends of the box, which are learned, as far as floats go."""
    forward, inverse = spline(4, dtype=dtype)
    raw = normal(14, seed=5, dtype=torch.float32).to(dtype)
    xs, ys, slopes = knots(raw.double(), 4)
    for end, sign in ((0, -1.0), (-1, 1.0)):
        out = torch.tensor([0.5, 10.0, 1e3, 1e6, 1e30], dtype=dtype)
        expected = ys[end] + sign * slopes[end] * out.double()
        y, log_slope = forward(xs[end] + sign * out, raw)
        rounding = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(y.double(), expected, rtol=rounding, atol=rounding)
        wanted = torch.full_like(log_slope, math.log(slopes[end]))
        torch.testing.assert_close(log_slope, wanted, rtol=rounding, atol=rounding)
        back, log_slope = inverse(expected.to(dtype), raw)
        torch.testing.assert_close(back, xs[end] + sign * out, rtol=rounding, atol=rounding)
        torch.testing.assert_close(log_slope, -wanted, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_the_range_is_learned(bound):
    """±B stay where they are; the last raw parameter sets B, and has a gradient."""
    forward, _ = spline(4, bound)
    for r in (-100.0, -1.0, 0.0, 2.0, 100.0):
        raw = torch.cat([normal(13, seed=2), torch.tensor([r], dtype=F64)])
        half = knots(raw, 4, bound)[0][-1]
        ends = torch.tensor([-half, half], dtype=F64)
        torch.testing.assert_close(forward(ends, raw)[0], ends)
        assert half >= 1e-3 * bound
        assert r != 0 or math.isclose(half, bound)
        if abs(r) < 50:
            raw.requires_grad_()
            (slope,) = torch.autograd.grad(forward(ends[1] / 2, raw)[0], raw)
            assert slope[-1] != 0


@each_bins
def test_least_widths_heights_and_slopes(bins):
    """However large the parameters: the map stays increasing, with bins that floats resolve."""
    module = Spline(1, bins=bins, dtype=torch.float32).spline
    raw = 1e4 * normal(500, 3 * bins + 2, dtype=torch.float32)
    raw[:, -1] = 0
    table, _ = module._table(raw)
    xs, ys, slopes = table.unflatten(-1, (3, bins + 1)).unbind(-2)
    # Of a box of size 2, up to the rounding of positions.
    for points in (xs, ys):
        assert (points.diff() >= 2e-3 - 1e-6).all()
        assert (points[:, 0] == -1).all() and (points[:, -1] == 1).all()
    for row, end in ((0, -1e3), (-1, 1e3)):
        y, log_slope = module(torch.full((500,), end), raw)
        assert (log_slope.abs() <= math.log(1000) * (1 + 1e-6)).all()
        assert (slopes[:, row].sign() == log_slope.sign()).all()
        assert y.isfinite().all()


@each_dtype
def test_gradients_out_of_range_and_at_bin_edges_are_finite(dtype):
    """Both directions, extreme parameters, points on the very knots, at ±B and far out."""
    forward, inverse = spline(5, dtype=dtype)
    raw = (10 * normal(200, 17, dtype=dtype)).requires_grad_()
    module = Spline(1, bins=5, dtype=dtype).spline
    table, half = module._table(raw.detach())
    far = torch.tensor([-1e30, -1e6, 0.0, 1e6, 1e30], dtype=dtype).expand(200, 5)
    points = torch.cat([table[:, :12] * half[:, None], far], -1).requires_grad_()
    for function in (forward, inverse):
        y, log_slope = function(points, raw[:, None])
        assert y.isfinite().all() and log_slope.isfinite().all()
        # Weights that keep sums over points 10³⁰ away within float32.
        weights = 1 / (1 + points.detach().abs())
        grads = torch.autograd.grad((weights * y + log_slope).sum(), [points, raw])
        assert all(g.isfinite().all() for g in grads)


def test_gradients_are_right_out_of_range_and_for_every_parameter():
    """Against differences, away from knots; the tails too move with all that sets them."""
    forward, inverse = spline(3)
    raw = normal(11, seed=1).requires_grad_()
    x = torch.tensor([-50.0, -4.0, -1.3, 0.2, 2.0, 5.0, 70.0], dtype=F64, requires_grad=True)
    for function in (forward, inverse):
        assert torch.autograd.gradcheck(function, (x, raw))
        assert torch.autograd.gradgradcheck(function, (x, raw))


@each_dtype
def test_the_quadratic_is_solved_to_rounding(dtype):
    """Slopes from 10⁻³ to 10³ in all combinations: no cancellation for either sign of m."""
    few = torch.logspace(-3, 3, 7, dtype=dtype)
    share = torch.cat([torch.tensor([0.0, 1.0]), torch.rand(50), torch.logspace(-7, -1, 13)])
    share = torch.cat([share, 1 - share]).to(dtype)
    grid = torch.meshgrid(few, few, few, share, indexing="ij")
    s, left, right, share = (g.flatten() for g in grid)
    one = torch.ones_like(s)
    bin_ = _Bin(0 * one, 0 * one, one, s, left, right)
    t = _solve(bin_, share)
    again, slope = _quotient(bin_, t)
    eps = torch.finfo(dtype).eps
    assert (t >= 0).all() and (t <= 1 + eps).all()
    # t is within a few eps, which the slope d share/dt = (dy/dx)/s carries over.
    assert ((again - share).abs() <= 8 * eps * (1 + slope / s)).all()


@pytest.mark.parametrize("bins", [0, -1, 257, 2.0, True, "8"])
def test_wrong_bins_are_refused(bins):
    with pytest.raises(ValueError, match=r"bins=.*whole number from 1 to 256"):
        Spline(2, bins=bins)


@pytest.mark.parametrize("bound", [0, -1.0, math.inf, math.nan, 2e6, True, "3"])
def test_a_wrong_bound_is_refused(bound):
    with pytest.raises(ValueError, match=r"bound=.*above 0 and at most 1e\+06"):
        Spline(2, bound=bound)
