"""The work of a log-density, for functions whose operations can be counted by hand."""

from __future__ import annotations

import pytest
import torch

from nfvi.targets import LogDensity
from nfvi.targets.work import numbers_per_point


def quadratic(z):
    """d products, their sum and its multiple: d + 2 numbers."""
    return (z * z).sum(-1) * -0.5


def counted(function, dim: int = 3, n: int = 10) -> float:
    target = LogDensity(function, dim)
    target.check()
    return numbers_per_point(target, torch.ones(n, dim))


@pytest.mark.parametrize("dim", [1, 3, 50])
def test_a_quadratic(dim):
    assert counted(quadratic, dim) == dim + 2


def test_a_matrix_of_data():
    """z X of d × 1 000 numbers, their squares, the sum and its negative."""
    x = torch.ones(3, 1_000)
    assert counted(lambda z: -((z @ x) ** 2).sum(-1)) == 2_002


def test_a_function_of_one_point():
    """It runs once for all points, and is counted for one of them."""

    def one(z):
        return (z * z).sum() * -0.5

    assert counted(one) == counted(one, n=40) == 5


def test_it_does_not_depend_on_the_number_of_points():
    assert counted(quadratic, n=1) == counted(quadratic, n=64)


def test_several_results_count_all():
    """Values and indices of d each, and the sum."""
    assert counted(lambda z: z.sort(-1)[0].sum(-1)) == 7


def test_no_gradient_is_left_behind():
    target = LogDensity(quadratic, 3)
    z = torch.ones(2, 3, requires_grad=True)
    numbers_per_point(target, z)
    assert z.grad is None and torch.is_grad_enabled()
