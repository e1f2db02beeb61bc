"""Planar flows: the textbook map, the hand-written recursions, degenerate parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import softplus

from nfvi.flows.numerics.planar_recursion import backward_recursion, forward_recursion
from nfvi.flows.planar import Planar


def planar(dim: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Planar:
    generator = torch.Generator().manual_seed(seed)
    return Planar(dim, jitter=0.7, generator=generator, dtype=torch.float32).to(dtype)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def textbook(flow: Planar, z: Tensor) -> tuple[Tensor, Tensor]:
    """Rezende and Mohamed, equations 10 to 12, with softplus in place of their m + 1."""
    w_u = flow.w @ flow.u
    u_hat = flow.u + (softplus(w_u) - 1 - w_u) * flow.w / (flow.w @ flow.w)
    h = (z @ flow.w + flow.b).tanh()
    return z + u_hat * h[..., None], (1 + (1 - h**2) * (flow.w @ u_hat)).abs().log()


def textbook_run(flows: list[Planar], z: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros((), dtype=z.dtype)
    for flow in flows:
        z, ladj = textbook(flow, z)
        total = total + ladj
    return z, total


def gradients(outputs: tuple[Tensor, Tensor], inputs: list[Tensor]) -> list[Tensor]:
    weights = normal(*outputs[0].shape, seed=9)
    scalar = (outputs[0] * weights).sum() + (outputs[1] * weights[..., 0]).sum()
    return list(torch.autograd.grad(scalar, inputs))


def close(got: list[Tensor], expected: list[Tensor], rtol: float = 1e-11) -> None:
    """The same float64 operations in another order, for maps of condition number below 10³."""
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


def tilted(dim: int, w_u: float, dtype: torch.dtype) -> Planar:
    """A planar flow with a given wᵀu, ‖w‖ = 2 and the hyperplane through 0."""
    flow = planar(dim, dtype)
    with torch.no_grad():
        w = torch.ones(dim, dtype=dtype) * 2 / dim**0.5
        flow.w.copy_(w)
        flow.u.copy_(w * w_u / 4)
        flow.b.zero_()
    return flow


@pytest.mark.parametrize("dim", [1, 2, 7])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_a_run_is_the_textbook_map_layer_by_layer(dim, length):
    flows = [planar(dim, seed=seed) for seed in range(length)]
    z = normal(40, dim).requires_grad_()
    inputs = [z, *nn.ModuleList(flows).parameters()]
    got, expected = Planar.forward_run(flows, z), textbook_run(flows, z)
    close([*got, *gradients(got, inputs)], [*expected, *gradients(expected, inputs)])


@pytest.mark.parametrize("known", [True, False])
def test_the_inverse_of_a_run_undoes_the_textbook_map(known):
    """Its gradients are those of the implicit function: J⁻¹ and −J⁻¹ ∂f/∂θ, here by autograd."""
    flows = [planar(3, seed=seed) for seed in range(8)]
    parameters = list(nn.ModuleList(flows).parameters())
    z = normal(3).requires_grad_()
    x = textbook_run(flows, z)[0].detach().requires_grad_()
    back, ladj = Planar.inverse_run(flows, x, z.detach() if known else None)
    close([back, ladj], [z, -textbook_run(flows, z)[1]], rtol=1e-9)

    cotangent = normal(3, seed=5)
    got = torch.autograd.grad(back, [x, *parameters], cotangent, retain_graph=True)
    jacobian = torch.autograd.functional.jacobian(lambda z: textbook_run(flows, z)[0], z)
    pulled = torch.linalg.solve(jacobian.mT, cotangent)
    by_parameters = torch.autograd.grad(textbook_run(flows, z)[0], parameters, -pulled)
    close(list(got), [pulled, *by_parameters], rtol=1e-8)


def test_the_recursions_solve_their_systems():
    start, gram, slope = normal(5, 4), normal(4, 4, seed=2), softplus(normal(4, seed=3))
    a = forward_recursion(start, gram)
    close([a], [start + a.tanh() @ gram.triu(1)])
    a = backward_recursion(start, gram, slope)
    close([a + (slope - 1) * a.tanh()], [start - a.tanh() @ gram.tril(-1)])


def recursions() -> list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    start, gram, slope = normal(5, 4), normal(4, 4, seed=2), softplus(normal(4, seed=3))
    return [(forward_recursion, (start, gram)), (backward_recursion, (start, gram, slope))]


@pytest.mark.parametrize(("function", "inputs"), recursions(), ids=["forward", "backward"])
def test_hand_written_derivatives(function, inputs):
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(function, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("direction", ["forward", "known"])
def test_a_stack_of_runs_under_vmap_is_the_loop(direction):
    """Eight layers, three restarts: some inputs mapped, some shared, gradients outside vmap."""

    class Run(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.flows = nn.ModuleList([planar(3, seed=100 * seed + k) for k in range(8)])

        def forward(self, point: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
            if direction == "forward":
                return Planar.forward_run(list(self.flows), point)
            return Planar.inverse_run(list(self.flows), point, z)

    runs, z = [Run(seed) for seed in range(3)], normal(6, 3)
    extra = () if direction == "forward" else (z,)
    params, buffers = stack_module_state(runs)
    got = vmap(lambda p, b: functional_call(runs[0], (p, b), (z, *extra)))(params, buffers)
    got_grads = gradients(got, list(params.values()))
    weights = normal(3, 6, 3, seed=9)
    for r, run in enumerate(runs):
        y, ladj = run(z, *extra)
        scalar = (y * weights[r]).sum() + (ladj * weights[r, :, 0]).sum()
        expected = torch.autograd.grad(scalar, list(run.parameters()))
        close([got[0][r], got[1][r], *(g[r] for g in got_grads)], [y, ladj, *expected])


def test_gradients_in_a_batch_are_those_one_by_one():
    """``is_grads_batched``, and the same by ``torch.func``: the signal-to-noise tracker's need."""
    flows = [planar(3, seed=seed) for seed in range(4)]
    parameters = list(nn.ModuleList(flows).parameters())
    z = normal(6, 3)
    x = Planar.forward_run(flows, z)[0].detach()
    for y, ladj in (Planar.forward_run(flows, z), Planar.inverse_run(flows, x, z)):
        scalars = y.sum(-1) + ladj
        batch = torch.autograd.grad(
            scalars,
            parameters,
            torch.eye(6, dtype=z.dtype),
            is_grads_batched=True,
            retain_graph=True,
        )
        for n in range(6):
            one = torch.autograd.grad(scalars[n], parameters, retain_graph=True)
            close([g[n] for g in batch], list(one))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("w_u", [-1e3, -40.0, 40.0, 1e3])
@pytest.mark.parametrize("dim", [1, 2, 20, 1000])
def test_extreme_tilt(dim, w_u, dtype):
    """wᵀu = ±40: at the hyperplane log|det| = log softplus(wᵀu), which is −40 or log 40."""
    flow = tilted(dim, w_u, dtype)
    z = normal(6, dim).to(dtype)
    z[0] = 0
    point = z.clone().requires_grad_()
    x, ladj = flow(point)
    expected = math.log(w_u) if w_u > 0 else max(w_u, math.log(torch.finfo(dtype).tiny))
    eps = torch.finfo(dtype).eps
    assert abs(ladj[0].item() - expected) <= 8 * eps * abs(w_u) * dim**0.5
    # Off it, the float64 formula that has no cancellation.
    single = [p.detach().double() for p in (flow.w, z)]
    a = single[1] @ single[0]
    inner = a.tanh() ** 2 + torch.where(a.abs() < 300, 1 / a.cosh() ** 2, 0) * (
        w_u if w_u > 0 else math.exp(w_u)
    )
    # a is rounded by eps · ‖w‖ ‖z‖, and log inner has slope 2/a at most near 0.
    bound = 16 * eps * (1 + abs(w_u)) * (1 + dim**0.5 * (1 + 1 / a[1:].abs()))
    assert ((ladj[1:].double() - inner[1:].log()).abs() <= bound).all()
    assert all(
        g.isfinite().all() for g in torch.autograd.grad(x.sum() + ladj.sum(), [point, flow.u])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("w_u", [-40.0, 40.0])
@pytest.mark.parametrize("dim", [1, 2, 20])
def test_the_inverse_of_an_extreme_tilt(dim, w_u, dtype):
    """What is pushed forward again lands on the point, also where the map is all but flat."""
    flow = tilted(dim, w_u, dtype)
    x = torch.cat([normal(50, dim).to(dtype), torch.zeros(1, dim, dtype=dtype)]).requires_grad_()
    z, ladj = flow.inverse(x)
    again, there = flow(z)
    # Rounded at the size of û, which is wᵀu / ‖w‖ at most.
    assert (again - x).abs().max() <= 32 * torch.finfo(dtype).eps * (abs(w_u) + 4)
    assert ladj.isfinite().all() and there.isfinite().all()
    grads = torch.autograd.grad(z.sum() + ladj.sum(), [x, *flow.parameters()])
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-21])
def test_without_w_a_layer_is_a_shift(size, dtype):
    """w = 0, where û is 0/0: f(z) = z + u tanh(b) and log|det| = 0, with finite gradients."""
    flow, z = planar(3, dtype), normal(5, 3).to(dtype).requires_grad_()
    with torch.no_grad():
        flow.w.fill_(size)
        flow.u.sub_(flow.w @ flow.u)
    for function, sign in ((flow, 1), (flow.inverse, -1)):
        x, ladj = function(z)
        if size == 0:
            torch.testing.assert_close(x, z + sign * flow.u * flow.b.tanh())
            assert (ladj == 0).all()
        grads = torch.autograd.grad(x.sum() + ladj.sum(), [z, *flow.parameters()])
        assert all(v.isfinite().all() for v in (x, ladj, *grads))


def test_the_start():
    """w is a unit vector, b and u move off û = 0 by ``jitter``, which is 0.1 if it is not given."""
    still, moved = (
        Planar(4, jitter=j, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        for j in (0.0, None)
    )
    assert torch.equal(still.w, moved.w)
    assert abs(still.w.norm().item() - 1) < 1e-12 and still.b == 0
    noise = torch.cat([moved.u - still.u, moved.b[None]]) / 0.1
    # Five standard normal draws: the norm exceeds 5 once in 10⁴ seeds, and this seed is fixed.
    assert 0.5 < noise.norm() < 5
