"""The triangular flow is a Gaussian of full rank, and its solver stays within the floats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

from nfvi.flows.numerics import solve_across, solve_rows
from nfvi.flows.triangular import Triangular
from nfvi.guides.guide import Guide


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def guide_of(dim: int, jitter: float = 1.0) -> Guide:
    return Guide("tril", dim, jitter=jitter, generator=seeded(0), dtype=torch.float64)


def factor(flow: Triangular) -> Tensor:
    """(I + N) diag(σ), entry by entry."""
    below = iter(flow.lower)
    matrix = torch.eye(flow.dim, dtype=flow.rho.dtype)
    for i in range(flow.dim):
        for j in range(i):
            matrix[i, j] = next(below)
    return matrix * softplus(flow.rho)


@pytest.mark.parametrize("dim", [1, 2, 5, 20])
def test_with_the_normal_base_it_is_the_multivariate_normal(dim):
    guide, x = guide_of(dim), 3 * normal(50, dim)
    (flow,) = guide.flows
    expected = MultivariateNormal(flow.loc, scale_tril=factor(flow))
    # Rounding times the condition of the factor, squared in the quadratic form.
    rtol = 64 * torch.finfo(x.dtype).eps * dim * torch.linalg.cond(factor(flow)).item()
    torch.testing.assert_close(guide.log_prob(x), expected.log_prob(x), rtol=rtol, atol=rtol)
    z = normal(50, dim, seed=2)
    x, log_q = guide(z)
    torch.testing.assert_close(x, flow.loc + z @ factor(flow).mT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_q, expected.log_prob(x), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_it_can_be_any_gaussian(dim):
    """Parameters worked out from a mean and a covariance of condition 10⁴."""
    rotation = torch.linalg.qr(normal(dim, dim)).Q
    spread = torch.logspace(-2, 2, dim, dtype=torch.float64)
    target = MultivariateNormal(normal(dim, seed=3), (rotation * spread) @ rotation.mT)
    guide = guide_of(dim)
    (flow,) = guide.flows
    sigma = target.scale_tril.diagonal()
    rows, columns = torch.tril_indices(dim, dim, -1)
    with torch.no_grad():
        flow.loc.copy_(target.loc)
        flow.rho.copy_(torch.log(torch.expm1(sigma)))
        flow.lower.copy_((target.scale_tril / sigma)[rows, columns])
    x = target.loc + normal(40, dim)
    torch.testing.assert_close(guide.log_prob(x), target.log_prob(x), rtol=1e-9, atol=1e-9)


def test_a_context_moves_mean_and_scales_and_leaves_the_rest():
    flow = Triangular(3, context_dim=2, jitter=0.5, generator=seeded(0), dtype=torch.float64)
    context, z = normal(6, 2, seed=5), normal(6, 3)
    x, ladj = flow(z, context)
    for i, c in enumerate(context):
        by_context = flow.network(c)
        matrix = torch.eye(3, dtype=z.dtype)
        matrix[1, 0], matrix[2, 0], matrix[2, 1] = flow.lower
        matrix = matrix * softplus(flow.rho + by_context[3:])
        torch.testing.assert_close(x[i], flow.loc + by_context[:3] + matrix @ z[i])
        torch.testing.assert_close(ladj[i], torch.linalg.slogdet(matrix).logabsdet)
    back, back_ladj = flow.inverse(x, context=context)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(back_ladj, -ladj)
    assert not torch.allclose(flow(z, context + 1)[0], x)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_rows_are_solved_and_the_other_triangle_is_not_read(upper, unit):
    full, rows = 3 * torch.eye(5) + normal(5, 5, dtype=torch.float32), normal(4, 5).float()
    triangle = full.triu() if upper else full.tril()
    if unit:
        triangle = triangle - triangle.diagonal().diag() + torch.eye(5)
    solution = solve_rows(full, rows, upper=upper, unit=unit)
    torch.testing.assert_close(solution @ triangle.mT, rows)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 9])
def test_systems_side_by_side_are_solved_each(upper, dim):
    """Up to four coordinates by substitution, beyond by LAPACK; gradients as well."""
    matrix = 3 * torch.eye(dim, dtype=torch.float64) + normal(7, dim, dim)
    matrix = matrix.triu() if upper else matrix.tril()
    right = normal(dim, 7, seed=2).requires_grad_()
    diagonal = matrix.diagonal(0, 1, 2)
    rows = (matrix - diagonal.diag_embed()).transpose(0, 1)
    rows = rows[:-1] if upper else rows[1:]
    found = solve_across(diagonal.mT, rows, right, upper=upper)
    expected = torch.linalg.solve(matrix, right.mT.unsqueeze(-1)).squeeze(-1).mT
    torch.testing.assert_close(found, expected)
    weight = normal(dim, 7, seed=3)
    (got,) = torch.autograd.grad(found, right, weight)
    by_right = torch.linalg.solve(matrix.mT, weight.mT.unsqueeze(-1)).squeeze(-1).mT
    torch.testing.assert_close(got, by_right)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_derivatives_of_the_solver(upper, unit):
    matrix = (2 * torch.eye(4, dtype=torch.float64) + normal(4, 4) / 4).requires_grad_()
    rows = normal(3, 4, seed=2).requires_grad_()

    def solve(matrix: Tensor, rows: Tensor) -> Tensor:
        return solve_rows(matrix, rows, upper=upper, unit=unit)

    assert torch.autograd.gradcheck(solve, (matrix, rows), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(solve, (matrix, rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_solution_out_of_range_is_cut(dtype):
    """Off-diagonal −10 makes the last coordinate 11⁹⁹⁸ times the first."""
    matrix = (-10 * torch.ones(1000, 1000, dtype=dtype)).requires_grad_()
    rows = torch.ones(1, 1000, dtype=dtype).requires_grad_()
    solution = solve_rows(matrix, rows, unit=True)
    limit = torch.finfo(dtype).max ** 0.4
    assert solution.abs().max() <= limit
    expected = 11.0 ** torch.arange(8, dtype=dtype)
    torch.testing.assert_close(solution[0, :8], expected)
    for grad in torch.autograd.grad(solution.sum(), (matrix, rows)):
        assert grad.isfinite().all()


def test_not_a_number_stays_so():
    flow = Triangular(4, generator=seeded(0))
    x = torch.zeros(2, 4)
    x[0, 1] = float("nan")
    z, _ = flow.inverse(x)
    assert z[0].isnan().any() and z[1].isfinite().all()


def test_the_start_is_as_close_to_the_identity_in_any_dimension():
    """‖N z‖² for z ~ N(0, I) is Σ N² = jitter² (d − 1) / 2 on average, as ‖μ‖² = jitter² d."""
    flow = Triangular(1000, jitter=0.1, generator=seeded(0), dtype=torch.float64)
    # Relative standard deviation of a sum of 499 500 squares of normals: √(2 / 499 500) = 0.002.
    torch.testing.assert_close(
        flow.lower.square().sum().item(), 0.01 * 999 / 2, rtol=6 * 0.002, atol=0
    )
