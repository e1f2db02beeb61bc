"""Maps from R^k to matrix supports, against their autograd Jacobians."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import constraints

from nfvi.targets.bijections import bijection, same_constraint

K = 3


@pytest.mark.parametrize(
    "support", [constraints.lower_cholesky, constraints.positive_definite], ids=str
)
def test_matrix_bijections(support):
    transform = bijection(support)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    y = transform(x)
    assert transform.inverse_shape(y.shape) == x.shape
    assert transform.forward_shape(x.shape) == y.shape
    assert bool(support.check(y).all())
    torch.testing.assert_close(transform.inv(y), x)
    rows, columns = torch.tril_indices(K, K)
    ladj = transform.log_abs_det_jacobian(x, y)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: transform(v)[rows, columns], x[i])
        torch.testing.assert_close(ladj[i], torch.linalg.slogdet(jacobian).logabsdet)


def test_reals_need_no_map():
    assert bijection(constraints.real) is None
    assert bijection(constraints.independent(constraints.real, 2)) is None
    with pytest.raises(NotImplementedError):
        bijection(constraints.boolean)


def test_same_constraint():
    interval, tensor = constraints.interval, torch.tensor
    assert same_constraint(interval(0.0, 1.0), interval(0.0, 1.0))
    assert same_constraint(interval(0.0, tensor([1.0, 2.0])), interval(0.0, tensor([1.0, 2.0])))
    assert not same_constraint(interval(0.0, tensor([1.0])), interval(0.0, tensor([3.0])))
    assert not same_constraint(constraints.positive, constraints.real)
    cat = constraints.cat
    assert not same_constraint(
        cat([constraints.real, interval(0.0, 1.0)]), cat([constraints.real, interval(0.0, 2.0)])
    )
