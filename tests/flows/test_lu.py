"""The LU flow is the dense matrix that its factors multiply to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import softplus

from nfvi.flows.lu import LU


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flow_of(dim: int, jitter: float = 1.0, context_dim: int = 0) -> LU:
    generator = torch.Generator().manual_seed(0)
    return LU(dim, jitter=jitter, context_dim=context_dim, generator=generator, dtype=torch.float64)


def dense(flow: LU, rho: Tensor | None = None) -> Tensor:
    rho = flow.factors.diagonal() if rho is None else rho
    eye = torch.eye(flow.dim, dtype=rho.dtype)
    lower, upper = flow.factors.tril(-1) + eye, flow.factors.triu(1) + eye
    return lower @ softplus(rho).diag() @ upper


@pytest.mark.parametrize("dim", [1, 2, 7, 20])
def test_it_is_a_dense_matrix_with_its_determinant(dim):
    flow, z = flow_of(dim), normal(2, 30, dim)
    matrix = dense(flow)
    x, ladj = flow(z)
    sign, expected = torch.linalg.slogdet(matrix)
    rtol = 64 * torch.finfo(z.dtype).eps * dim * torch.linalg.cond(matrix).item()
    torch.testing.assert_close(x, z @ matrix.mT, rtol=rtol, atol=rtol)
    assert sign == 1
    torch.testing.assert_close(ladj, expected.expand(2, 30), rtol=rtol, atol=rtol)
    back, back_ladj = flow.inverse(x)
    torch.testing.assert_close(back, torch.linalg.solve(matrix, x.mT).mT, rtol=rtol, atol=rtol)
    torch.testing.assert_close(back_ladj, -ladj)


def test_it_can_be_a_rotation():
    """By 60°: its leading minors, cos 60° and 1, are positive."""
    angle = torch.tensor(torch.pi / 3, dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    flow = flow_of(2)
    sigma = torch.stack([c, 1 / c])
    rho = sigma.expm1().log()
    with torch.no_grad():
        flow.factors.copy_(torch.stack([rho[0], -s / c, s / c, rho[1]]).view(2, 2))
    z = normal(10, 2)
    expected = torch.stack([c * z[:, 0] - s * z[:, 1], s * z[:, 0] + c * z[:, 1]], -1)
    torch.testing.assert_close(flow(z)[0], expected)
    torch.testing.assert_close(flow(z)[1], torch.zeros(10, dtype=z.dtype))


def test_a_context_scales_in_the_middle():
    flow = flow_of(3, context_dim=2)
    context, z = normal(6, 2, seed=5), normal(6, 3)
    x, ladj = flow(z, context)
    for i, c in enumerate(context):
        matrix = dense(flow, flow.factors.diagonal() + flow.network(c))
        torch.testing.assert_close(x[i], matrix @ z[i])
        torch.testing.assert_close(ladj[i], torch.linalg.slogdet(matrix).logabsdet)
    back, back_ladj = flow.inverse(x, context=context)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(back_ladj, -ladj)
    assert not torch.allclose(flow(z, context + 1)[0], x)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_the_start_is_the_identity_moved_by_the_jitter(dim):
    z = normal(10, dim)
    still, _ = flow_of(dim, jitter=0.0)(z)
    torch.testing.assert_close(still, z, rtol=1e-15, atol=1e-15)
    moved, _ = flow_of(dim, jitter=1e-3)(z)
    # Each of d + d (d − 1) / d entries of size jitter, to first order.
    assert 0 < (moved - z).abs().max() < 1e-3 * 6 * 2 * z.abs().sum(-1).max()


# Many points are undone by one product with the inverse of a whole run, few by solving for them.


class Undone(nn.Module):
    """A run of layers backwards, for ``functional_call``."""

    def __init__(self, dim: int, length: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(dim + length)
        self.layers = nn.ModuleList(
            LU(dim, jitter=0.5, generator=generator, dtype=dtype) for _ in range(length)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return LU.inverse_run(list(self.layers), x)


def gradients(run: Undone, x: Tensor, pieces: int) -> list[Tensor]:
    """Values and gradients, of so many pieces of the points one after the other."""
    x = x.clone().requires_grad_()
    parts = [run(piece) for piece in x.chunk(pieces)]
    z, ladj = (torch.cat(values) for values in zip(*parts, strict=True))
    scalar = (z * normal(*z.shape, seed=8)).sum() + ladj.square().sum() + ladj.exp().sum()
    return [z, ladj, *torch.autograd.grad(scalar, [x, *run.parameters()])]


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_many_points_are_undone_like_few(dim, length):
    run, x = Undone(dim, length), normal(40, dim)
    for many, few in zip(gradients(run, x, 1), gradients(run, x, 40), strict=True):
        # The same in exact arithmetic; the run has a condition number below 10³.
        torch.testing.assert_close(many, few, rtol=1e-10, atol=1e-10)


def test_second_derivatives_of_a_run_of_many_points():
    run, x = Undone(2, 3), normal(5, 2).requires_grad_()
    names = [name for name, _ in run.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(run, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *run.parameters()), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, (x, *run.parameters()))


def test_runs_under_vmap_are_the_loop():
    runs, x = [Undone(2, length=3) for _ in range(2)], normal(2, 9, 2)
    with torch.no_grad():
        for i, parameter in enumerate(runs[1].parameters()):
            parameter.add_(0.3 * normal(2, 2, seed=i))
    state, _ = stack_module_state(runs)
    z, ladj = vmap(lambda p, x: functional_call(runs[0], p, (x,)))(state, x)
    scalar = (z.square().sum(-1) + ladj.exp()).sum()
    stacked = torch.autograd.grad(scalar, list(state.values()), create_graph=True)
    length = sum(g.square().sum() for g in stacked)
    second = torch.autograd.grad(length, list(state.values()))
    for r, run in enumerate(runs):
        alone, alone_ladj = run(x[r])
        torch.testing.assert_close((z[r], ladj[r]), (alone, alone_ladj))
        total = (alone.square().sum(-1) + alone_ladj.exp()).sum()
        grads = torch.autograd.grad(total, list(run.parameters()), create_graph=True)
        torch.testing.assert_close([g[r] for g in stacked], list(grads))
        length = sum(g.square().sum() for g in grads)
        again = torch.autograd.grad(length, list(run.parameters()))
        torch.testing.assert_close([g[r] for g in second], list(again))


@pytest.mark.parametrize("dim", [1, 2, 20, 100])
@pytest.mark.parametrize("length", [1, 4])
def test_extreme_runs_of_many_points_stay_finite(dim, length):
    run = Undone(dim, length, torch.float32)
    x = normal(2 * dim + 2, dim).float()
    for seed in range(10):
        with torch.no_grad():
            for i, parameter in enumerate(run.parameters()):
                parameter.copy_(10 * normal(dim, dim, seed=100 * seed + i))
        point = x.clone().requires_grad_()
        z, ladj = run(point)
        grads = torch.autograd.grad(z.sum() + ladj.sum(), [point, *run.parameters()])
        assert all(value.isfinite().all() for value in (z, ladj, *grads))
