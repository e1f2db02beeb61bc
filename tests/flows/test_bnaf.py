"""Block neural autoregressive flows: the formula unit by unit, triangular Jacobians, options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn.functional import softplus

from nfvi.errors import FormulaError
from nfvi.flows.bnaf import BlockAutoregressive
from nfvi.guides.guide import Guide

SHAPES = [[1], [8], [3, 4], [4, 1, 3]]


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flow_of(
    dim: int, hidden: list[int], index: int = 0, context_dim: int = 0
) -> BlockAutoregressive:
    return BlockAutoregressive(
        dim,
        hidden=hidden,
        index=index,
        context_dim=context_dim,
        jitter=0.7,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )


def by_hand(flow: BlockAutoregressive, z: Tensor) -> Tensor:
    """f(z) for one point (d), coordinate by coordinate and unit by unit, as the class says it."""
    order = list(range(flow.dim)) if flow.index % 2 == 0 else list(range(flow.dim))[::-1]
    tanhs, x = {}, z.clone()
    sharpness = (softplus(flow.sharpness) + 1e-3).split(flow.hidden, 1)
    for n, i in enumerate(order):
        inputs: dict[int, Tensor] = {j: z[j : j + 1] for j in order[:n]}
        t = z[i : i + 1]
        for k, units in enumerate(flow.hidden):
            layer, width = flow.layers[k], 1 if k == 0 else flow.hidden[k - 1]
            weight = layer.weight[i * units : (i + 1) * units]
            cross = layer.bias[i * units : (i + 1) * units]
            for j in order[:n]:
                cross = cross + weight[:, j * width : (j + 1) * width] @ inputs[j]
            u = t if k == 0 else flow.mixing[k - 1][i].softmax(0).mT @ t
            s = sharpness[k][i]
            h = torch.tanh(s * u + cross)
            t, tanhs[k, i] = h / s, h
            inputs = {j: tanhs[k, j] for j in order[:n]}
        q = 0.999 * (20 * (flow.height[i] / 20).tanh()).expm1() / flow.hidden[-1]
        out, units = flow.layers[-1], flow.hidden[-1]
        rest = out.bias[i]
        for j in order[:n]:
            rest = rest + out.weight[i, j * units : (j + 1) * units] @ inputs[j]
            rest = rest + out.weight[i, flow.dim * units + j] * z[j]
        x[i] = softplus(flow.rho[i]) * (z[i] + q @ t) + rest
    return x


@pytest.mark.parametrize("hidden", SHAPES, ids=str)
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("dim", [1, 2, 4])
def test_it_is_the_formula_unit_by_unit(dim, index, hidden):
    flow, z = flow_of(dim, hidden, index), 2 * normal(5, dim)
    x, ladj = flow(z)
    expected = torch.stack([by_hand(flow, row) for row in z])
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)
    for row, value in zip(z, ladj, strict=True):
        slopes = jacobian(lambda p: flow(p)[0], row)
        other = slopes.triu(1) if index == 0 else slopes.tril(-1)
        assert not other.any()
        assert (slopes.diagonal() > 0).all()
        torch.testing.assert_close(value, slopes.diagonal().log().sum())
    for known in (None, z):
        back, back_ladj = flow.inverse(x, known)
        torch.testing.assert_close(back, z, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(back_ladj, -ladj, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_steep_and_flat_places_are_inverted(dtype):
    """Slopes from 10⁻³ σ, the least, to 10⁴ σ, and points on both sides of them."""
    flow = flow_of(3, [8]).to(dtype)
    with torch.no_grad():
        flow.height.copy_(torch.tensor([-20.0, 5.0, 9.0])[:, None].expand(3, 8))
        flow.sharpness.fill_(5.0)
        flow.layers[0].bias.zero_()
    x = torch.linspace(-50, 50, 201, dtype=dtype)[:, None].expand(-1, 3).contiguous()
    z, ladj = flow.inverse(x)
    again, forth = flow(z)
    slope = torch.stack([jacobian(lambda p: flow(p)[0], row) for row in z])
    spread = torch.linalg.matrix_norm(slope, float("inf"))
    # z is off by a few roundings of its own size, which the map multiplies by its slope.
    bound = 64 * torch.finfo(dtype).eps * (1 + x.abs().amax(-1) + spread * (1 + z.abs().amax(-1)))
    assert ((again - x).abs().amax(-1) <= bound).all()
    assert (ladj + forth).abs().max() <= 1e-3 * (1 + forth.abs().max())
    assert slope.diagonal(dim1=1, dim2=2).min() > 0


class Inverse(nn.Module):
    def __init__(self, flow: BlockAutoregressive) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        z, ladj = self.flow.inverse(x)
        return torch.cat([z, ladj.unsqueeze(-1)], -1)


def test_second_derivatives_of_the_inverse_with_two_hidden_layers():
    module, x = Inverse(flow_of(3, [2, 2], index=1)), normal(1, 3).requires_grad_()
    keys = [key for key, _ in module.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(module, dict(zip(keys, values, strict=True)), (x,))

    assert torch.autograd.gradgradcheck(function, (x, *module.parameters()))


def test_a_context_is_added_to_the_first_layer_and_to_x():
    flow = flow_of(3, [4, 2], context_dim=2)
    context, z = normal(6, 2, seed=5), normal(6, 3)
    x, ladj = flow(z, context)
    state = {key: value for key, value in flow.state_dict().items() if "network" not in key}
    for i, c in enumerate(context):
        plain, added = flow_of(3, [4, 2]), flow.network(c)
        first = flow.layers[0].bias + added[:12]
        last = flow.layers[-1].bias + added[12:]
        plain.load_state_dict(state | {"layers.0.bias": first, "layers.2.bias": last})
        torch.testing.assert_close((x[i], ladj[i]), plain(z[i]))
        torch.testing.assert_close((x[i], ladj[i]), flow(z[i], c))
    for known in (None, z):
        back, back_ladj = flow.inverse(x, known, context)
        torch.testing.assert_close(back, z)
        torch.testing.assert_close(back_ladj, -ladj)
    assert not torch.allclose(flow(z, context + 1)[0], x)
    by_context = context.clone().requires_grad_()
    known = torch.autograd.grad(flow.inverse(x.detach(), z, by_context)[1].sum(), by_context)
    found = torch.autograd.grad(flow.inverse(x.detach(), None, by_context)[1].sum(), by_context)
    torch.testing.assert_close(known, found, rtol=1e-9, atol=1e-9)


def test_layers_take_turns_in_a_formula():
    guide = Guide("bnaf(hidden=[3,2])*3", 4, generator=torch.Generator().manual_seed(0))
    assert [flow.index for flow in guide.flows] == [0, 1, 2]
    assert [flow.hidden for flow in guide.flows] == [[3, 2]] * 3
    for flow in guide.flows:
        slopes = jacobian(lambda p, flow=flow: flow(p)[0], torch.zeros(4))
        assert not (slopes.triu(1) if flow.index % 2 == 0 else slopes.tril(-1)).any()


@pytest.mark.parametrize("hidden", [[], [0], [8, -1], [2.0], [True], [1001]])
def test_wrong_widths_are_refused(hidden):
    with pytest.raises(ValueError, match=r"hidden=.*as in hidden=\[8\]"):
        BlockAutoregressive(3, hidden=hidden)
    with pytest.raises(FormulaError, match="hidden"):
        Guide(f"bnaf(hidden={hidden})".replace("True", "true"), 3)
