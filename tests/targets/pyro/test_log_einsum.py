"""Einstein summation of logs, against torch's own of the exponentials."""

from __future__ import annotations

import math

import pytest
import torch

from nfvi.targets.pyro.log_einsum import einsum, tensordot

SIZES = {"i": 2, "j": 3, "k": 4}


@pytest.mark.parametrize("equation", ["ij->i", "ij,jk->ik", "ij,jk->ki", "ji,i,k->", "ij->ji"])
def test_against_torch(equation):
    generator = torch.Generator().manual_seed(0)
    operands = [
        torch.randn([SIZES[letter] for letter in letters], generator=generator)
        for letters in equation.split("->")[0].split(",")
    ]
    expected = torch.einsum(equation, *(operand.exp() for operand in operands)).log()
    torch.testing.assert_close(einsum(equation, *operands), expected)


def test_terms_that_peak_apart_and_impossible_ones():
    a, b = torch.tensor([0.0, -200.0]), torch.tensor([-200.0, 0.0])
    torch.testing.assert_close(einsum("i,i->", a, b), torch.tensor(-200.0).add(math.log(2)))
    never = torch.full((2,), -torch.inf, requires_grad=True)
    total = einsum("i,i->", never, a)
    assert total == -torch.inf
    (gradient,) = torch.autograd.grad(total, never)
    assert not gradient.isnan().any()


def test_tensordot():
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    torch.testing.assert_close(tensordot(a, b, axes=1), (a.exp() @ b.exp()).log())
