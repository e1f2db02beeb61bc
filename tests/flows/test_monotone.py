"""The sum-of-tanh transformer: its shape, its slope, its root and its options."""

from __future__ import annotations

import pytest
import torch

from nfvi.flows.monotone import LEAST_SLOPE, Monotone
from nfvi.flows.numerics.rootfind import solve_increasing


def make(dim: int, **options: object) -> Monotone:
    generator = torch.Generator().manual_seed(0)
    return Monotone(
        dim, **{"generator": generator, "dtype": torch.float64, "jitter": 1.0} | options
    )


def test_in_one_dimension_it_is_the_sum_of_its_docstring():
    """x = A z + Σ c tanh(s z + t) + m with A = a + γ Σ s, γ = 1/(2K), from the raw parameters."""
    flow = make(1, terms=3)
    softplus = torch.nn.functional.softplus
    m, a, *rest = flow.conditioner.linears[0].bias
    raw_c, raw_s, t = torch.stack(rest).split(3)
    c, s = softplus(raw_c) - 1 / 6, softplus(raw_s)
    rise = LEAST_SLOPE + softplus(a) + s.sum() / 6
    z = torch.linspace(-5, 5, 41, dtype=torch.float64)[:, None]
    expected = rise * z[:, 0] + (c * (s * z + t).tanh()).sum(-1) + m
    torch.testing.assert_close(flow(z)[0][:, 0], expected)


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_the_slope_is_never_less_than_its_floor(spread):
    flow = make(1, terms=6, jitter=spread)
    z = torch.linspace(-30, 30, 2001, dtype=torch.float64)[:, None]
    assert (flow(z)[1].exp() >= LEAST_SLOPE).all()
    assert (flow(z)[0].diff(dim=0) > 0).all()


def test_a_term_can_bend_the_slope_both_ways():
    """From the start, c above 0 makes the middle steeper than the tails, c below 0 flatter."""
    for sign in (1, -1):
        flow = make(1, terms=1, jitter=0.0)
        with torch.no_grad():
            flow.conditioner.linears[0].bias[2] += 2.0 * sign
            flow.conditioner.linears[0].bias[4] = 0.0
        slope = flow(torch.tensor([[0.0], [8.0]], dtype=torch.float64))[1]
        assert (slope[0] - slope[1]) * sign > 0.1


@pytest.mark.parametrize("terms", [0, -1, 101, 2.5, True, "6"])
def test_wrong_terms_are_refused(terms):
    with pytest.raises(ValueError, match="terms="):
        make(2, terms=terms)


def test_the_root_find_is_exact_where_the_function_is_flat_or_steep():
    """On a cubic, which is flat at its middle, and with the root at either end of the bracket."""
    target = torch.linspace(-8.0, 8.0, 33, dtype=torch.float64)
    middle, reach = torch.zeros_like(target), torch.full_like(target, 2.0)
    root = solve_increasing(lambda u: (u**3 - target, 3 * u**2), middle, reach)
    expected = target.sign() * target.abs() ** (1 / 3)
    # Where the slope is 0 rounding of the value leaves the cube root of it in the argument.
    torch.testing.assert_close(root, expected, rtol=1e-12, atol=1e-7)


def test_the_root_of_a_bad_point_is_not_a_number():
    target = torch.tensor([1.0, torch.nan])
    root = solve_increasing(lambda u: (u - target, torch.ones_like(u)), target * 0, target * 0 + 2)
    assert root[0] == 1.0 and root[1].isnan()
