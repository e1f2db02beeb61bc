"""The safeguarded root find."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfvi.flows.numerics.rootfind import solve_tanh

DTYPES = [torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@each_dtype
@given(
    c=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8),
    log_slope=st.floats(-80, 14, width=32),
)
def test_it_is_the_root_to_rounding(dtype, c, log_slope):
    """What is left of the equation is what its own rounding hides."""
    c = torch.tensor(c, dtype=dtype)
    slope = torch.tensor(math.exp(log_slope), dtype=dtype)
    a = solve_tanh(c, slope).double()
    slope, c = slope.double(), c.double()
    residual = a + (slope - 1) * a.tanh() - c
    # What the three terms round off, in the precision of the solve.
    terms = a.abs() + (slope - 1).abs() * a.tanh().abs() + c.abs()
    # One ulp of the root moves g by at most (1 + |slope − 1|) ulp(a).
    step = (1 + (slope - 1).abs()) * a.abs()
    info = torch.finfo(dtype)
    assert (residual.abs() <= 4 * info.eps * (terms + step) + info.tiny).all()


@each_dtype
@pytest.mark.parametrize("slope", [1e-30, 1e-8, 0.1, 1.0, 40.0, 1e5])
def test_the_roots_rise_with_the_right_hand_side(dtype, slope):
    positive = torch.linspace(0, 50, 2001, dtype=dtype)
    c = torch.cat([-positive.flip(0), positive[1:]])
    a = solve_tanh(c, torch.tensor(slope, dtype=dtype))
    # Where g is flat, equal roots may differ by what the rounding of g hides: the cube root of
    # eps for slope -> 0, as g(a) = slope · a + a³/3 there.
    assert (a.diff() >= -2 * torch.finfo(dtype).eps ** (1 / 3)).all()
    torch.testing.assert_close(a, -a.flip(0), rtol=64 * torch.finfo(dtype).eps, atol=0)


@each_dtype
def test_slope_one_is_the_identity(dtype):
    c = torch.tensor([-1e30, -3.0, 0.0, 1e-30, 7.0], dtype=dtype)
    assert torch.equal(solve_tanh(c, torch.ones((), dtype=dtype)), c)


def test_a_flat_function_has_the_closed_form_near_zero():
    """For slope = 0⁺ and small c the root is (3c)^(1/3), up to its relative square: tanh's series.

    Newton alone halves the error a step there at best, and from c itself it overshoots.
    """
    c = torch.tensor([1e-6, 1e-5, 1e-4], dtype=torch.float64)
    a = solve_tanh(c, torch.tensor(1e-300, dtype=torch.float64))
    expected = (3 * c) ** (1 / 3)
    # a − tanh a = a³/3 − 2a⁵/15 + …, hence a relative error of 2a²/15.
    assert ((a / expected - 1).abs() <= 0.2 * expected**2).all()


def test_shapes_broadcast():
    c, slope = torch.linspace(-3, 3, 12).reshape(4, 3), torch.tensor([0.1, 1.0, 5.0])
    a = solve_tanh(c, slope)
    assert a.shape == (4, 3)
    for k in range(3):
        assert torch.equal(a[:, k], solve_tanh(c[:, k], slope[k]))
    assert solve_tanh(torch.zeros(0, 3), slope).shape == (0, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_has_no_root_does_not_disturb_its_neighbours(bad):
    c, slope = torch.tensor([1.0, bad, -2.0]), torch.tensor(3.0)
    a = solve_tanh(c, slope)
    assert not a[1].isfinite()
    expected = solve_tanh(torch.tensor([1.0, -2.0]), slope)
    assert torch.equal(a[[0, 2]], expected)
    assert not solve_tanh(torch.full((2,), bad), slope).isfinite().any()
