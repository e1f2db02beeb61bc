"""Sylvester flows: the formula with dense matrices, planar flows of rank 1, inverse, context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn.functional import softplus

from nfvi.errors import FormulaError
from nfvi.flows.householder import Householder
from nfvi.flows.planar import Planar
from nfvi.flows.sylvester import Sylvester
from nfvi.guides.guide import Guide


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flow_of(dim: int, rank: int = 0, context_dim: int = 0, jitter: float = 1.0) -> Sylvester:
    generator = torch.Generator().manual_seed(0)
    return Sylvester(
        dim,
        rank=rank,
        jitter=jitter,
        context_dim=context_dim,
        generator=generator,
        dtype=torch.float64,
    )


def matrices(flow: Sylvester) -> tuple[Tensor, Tensor, Tensor]:
    """Q (d, m), R and R̃ (m, m), each from its definition."""
    reflections = [Householder(flow.dim, dtype=flow.v.dtype) for _ in range(flow.rank)]
    for reflection, v in zip(reflections, flow.v, strict=True):
        reflection.load_state_dict({"v": v.detach()})
    q = torch.eye(flow.dim, dtype=flow.v.dtype)[: flow.rank]
    for reflection in reflections:
        q = reflection(q)[0]
    inner = softplus(flow.scale) + 1e-3
    outer = (softplus(flow.factors.diagonal()) - 1) / inner
    r = flow.factors.triu(1) + outer.diag()
    r_tilde = flow.factors.tril(-1).mT + inner.diag()
    return q.mT.detach(), r, r_tilde


@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (2, 1), (2, 2), (7, 3), (20, 8), (20, 20)])
def test_it_is_the_formula_with_dense_matrices(dim, rank):
    flow, z = flow_of(dim, rank), normal(6, dim)
    q, r, r_tilde = matrices(flow)
    torch.testing.assert_close(q.mT @ q, torch.eye(rank, dtype=q.dtype), rtol=0, atol=1e-14 * dim)
    assert (r.diagonal() * r_tilde.diagonal() > -1).all()
    x, ladj = flow(z)
    expected = z + (z @ q @ r_tilde.mT + flow.b).tanh() @ r.mT @ q.mT
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)
    slopes = torch.stack([jacobian(lambda p: flow(p)[0], row) for row in z])
    bound = 64 * torch.finfo(z.dtype).eps * dim * torch.linalg.cond(slopes)
    assert ((ladj - torch.linalg.slogdet(slopes).logabsdet).abs() <= bound).all()
    assert (torch.linalg.slogdet(slopes).sign == 1).all()


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_rank_1_is_planar(dim):
    """w = s q and û = (softplus(ρ) − 1) w / ‖w‖², which u = ρ w / ‖w‖² gives."""
    flow, planar, z = flow_of(dim, 1), Planar(dim, dtype=torch.float64), normal(40, dim)
    q, _, r_tilde = matrices(flow)
    w = (q * r_tilde).flatten()
    with torch.no_grad():
        planar.w.copy_(w)
        planar.u.copy_(flow.factors.flatten() * w / (w @ w))
        planar.b.copy_(flow.b.squeeze())
    for got, expected in zip(
        (*flow(z), *flow.inverse(z)), (*planar(z), *planar.inverse(z)), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_the_rank_is_8_where_there_is_room():
    assert [flow_of(dim).rank for dim in (1, 2, 8, 9, 50)] == [1, 2, 8, 8, 8]
    assert flow_of(50, 12).rank == 12
    assert [p.numel() for p in Guide("sylvester(rank=2)", 5).parameters()] == [10, 4, 2, 2]


@pytest.mark.parametrize("rank", [-1, 4, 1.0, True])
def test_a_wrong_rank_is_refused(rank):
    with pytest.raises(ValueError, match=r"rank=.*from 1 to the dimension 3"):
        Sylvester(3, rank=rank)
    with pytest.raises(FormulaError, match="rank"):
        Guide(f"sylvester(rank={str(rank).lower()})", 3)


class Inverse(nn.Module):
    def __init__(self, flow: Sylvester) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        z, ladj = self.flow.inverse(x)
        return torch.cat([z, ladj.unsqueeze(-1)], -1)


def test_second_derivatives_of_the_inverse():
    """Also across the root finds of several coordinates, each of which enters those above it."""
    module, x = Inverse(flow_of(4, 3)), normal(2, 4).requires_grad_()
    keys = [key for key, _ in module.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(module, dict(zip(keys, values, strict=True)), (x,))

    assert torch.autograd.gradgradcheck(function, (x, *module.parameters()))


def test_a_context_shifts_b():
    flow = flow_of(4, 2, context_dim=3)
    context, z = normal(6, 3, seed=5), normal(6, 4)
    x, ladj = flow(z, context)
    state = {key: value for key, value in flow.state_dict().items() if "network" not in key}
    for i, c in enumerate(context):
        plain = flow_of(4, 2)
        plain.load_state_dict(state | {"b": flow.b + flow.network(c)})
        torch.testing.assert_close((x[i], ladj[i]), plain(z[i]))
    for known in (None, z):
        back, back_ladj = flow.inverse(x, known, context)
        torch.testing.assert_close(back, z)
        torch.testing.assert_close(back_ladj, -ladj)
    assert not torch.allclose(flow(z, context + 1)[0], x)
    scalar = flow.inverse(x.detach(), context=context)[1].sum()
    assert all((g != 0).any() for g in torch.autograd.grad(scalar, list(flow.parameters())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_slopes_close_to_zero_are_inverted(dtype):
    """softplus(−40) = 4 · 10⁻¹⁸: the map is almost flat where the argument of tanh is 0."""
    flow = flow_of(3).to(dtype)
    with torch.no_grad():
        flow.factors.diagonal().fill_(-40.0)
        flow.b.zero_()
    x = flow(torch.zeros(1, 3, dtype=dtype))[0].detach().requires_grad_()
    z, ladj = flow.inverse(x)
    assert z.abs().max() <= 1e-2  # (3 · 10⁻⁷)^(1/3), where z³/3 is rounded off
    for grad in torch.autograd.grad(z.sum() + ladj.sum(), [x, *flow.parameters()]):
        assert grad.isfinite().all()
