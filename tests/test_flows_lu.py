"""The LU flow is the dense matrix that its factors multiply to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
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
