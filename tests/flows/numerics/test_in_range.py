"""The cut of values and gradients that would leave the range of floats."""

from __future__ import annotations

import pytest
import torch

from nfvi.flows.numerics.in_range import in_range


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inside_the_range_it_is_the_identity(dtype):
    x = torch.tensor([-1e6, -1.0, 0.0, 3.0], dtype=dtype, requires_grad=True)
    y = in_range(x)
    assert torch.equal(y, x)
    weight = torch.tensor([1.0, -2.0, 3.0, 1e10], dtype=dtype)
    assert torch.equal(torch.autograd.grad(y, x, weight)[0], weight)
    assert torch.autograd.gradgradcheck(lambda x: in_range(x) ** 2, x.double())


def test_values_and_gradients_are_cut_at_the_limit():
    limit = torch.finfo(torch.float32).max ** 0.4
    x = torch.tensor([1e30, -1e30, 2.0], requires_grad=True)
    y = in_range(x)
    torch.testing.assert_close(y, torch.tensor([limit, -limit, 2.0]))
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([1.0, 1.0, -1e30]))
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, -limit]))


def test_not_a_number_stays_so():
    assert in_range(torch.tensor([torch.nan])).isnan().all()
