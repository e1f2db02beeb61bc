"""What every flow of the registry must do; a new family joins these tests by registering."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call, stack_module_state, vmap

from nfvi.flows import Flow, lookup, names

FLOWS = [name for name in names() if lookup(name).name == name]
DIMS = [1, 2, 20]
LARGE = 200
DTYPES = [torch.float32, torch.float64]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
SAFETY = 32
"""Factor above the first-order rounding bounds, whose constants depend on the order of sums."""


def large(name: str) -> int:
    """Many dimensions; fewer where a layer has a dense network, and a Jacobian d passes of it."""
    return LARGE if name in ("bnaf", "monotone") else 1000


each_flow = pytest.mark.parametrize("name", FLOWS)
each_dim = pytest.mark.parametrize(
    ("name", "dim"), [(name, dim) for name in FLOWS for dim in (*DIMS, large(name))]
)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_device = pytest.mark.parametrize("device", DEVICES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float32).to(dtype)


def make(name: str, dim: int, *, seed: int = 0, **common: object) -> Flow:
    """A flow with generic parameters, or a skip where the family has no such dimension."""
    cls = lookup(name).cls
    if dim < cls.min_dim:
        pytest.skip(f"{name} needs d >= {cls.min_dim}")
    return cls(dim, **{"jitter": 0.3, "generator": seeded(seed)} | common)


def generic(name: str, dim: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Flow:
    """Parameters that float32 holds exactly: both dtypes then mean the very same map."""
    return make(name, dim, seed=seed, dtype=torch.float32).to(dtype)


def small(name: str, dim: int) -> Flow:
    """With a small network where there is one: differences go through every parameter."""
    options = {"hidden": [5, 4]} if "hidden" in lookup(name).options else {}
    return make(name, dim, dtype=torch.float32, **options).double()


def run_of(name: str, dim: int, length: int = 3) -> list[Flow]:
    return [generic(name, dim, seed=seed) for seed in range(length)]


@cache
def singular_values(name: str, dim: int, seed: int) -> Tensor:
    """Those of the Jacobian at the float64 point ``normal(dim, seed=seed)``, by autograd.

    Of a flow that draws one coordinate after the other, many of them, it is the Jacobian of
    the inverse that is taken, at the image of the point.
    """
    flow = generic(name, dim)
    point = normal(dim, seed=seed)
    if dim >= LARGE and flow.fast == "density":
        image = flow(point)[0].detach()
        return 1 / torch.linalg.svdvals(
            jacobian(lambda x: flow.inverse(x)[0], image, vectorize=True)
        )
    return torch.linalg.svdvals(jacobian(lambda z: flow(z)[0], point, vectorize=True))


def condition(name: str, dim: int, seed: int) -> float:
    values = singular_values(name, dim, seed)
    return (values.max() / values.min()).item()


class Inverse(nn.Module):
    """The inverse of a flow as a module, for ``functional_call``."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(x, z)


def with_gradients(
    module: nn.Module, function: Callable[[Tensor], tuple[Tensor, Tensor]], point: Tensor
) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """What ``function`` gives, and the gradients of a generic scalar of it: input, parameters."""
    point = point.detach().requires_grad_()
    y, ladj = function(point)
    weights = normal(*y.shape, seed=91, dtype=y.dtype).to(y.device)
    scalar = (weights * y).sum() + (weights[..., 0] * ladj).sum()
    inputs = [point, *module.parameters()]
    grads = torch.autograd.grad(scalar, inputs, allow_unused=True, materialize_grads=True)
    return (y, ladj), list(grads)


def joined(values: tuple[Tensor, Tensor]) -> Tensor:
    return torch.cat([values[0], values[1][..., None]], -1)


# Rounding. A map with Jacobian J, evaluated in precision eps, is off by eps · ‖J‖ · ‖z‖ to first
# order; taking that back through J⁻¹ multiplies by ‖J⁻¹‖, hence eps · cond(J). A sum of d terms
# adds up to d such errors.


@each_dim
@each_dtype
def test_ladj_is_the_log_determinant_of_the_jacobian(name, dim, dtype):
    flow = generic(name, dim, dtype)
    for seed in range(1, 2 if dim >= LARGE else 5):
        _, ladj = flow(normal(dim, seed=seed, dtype=dtype))
        expected = singular_values(name, dim, seed).log().sum()
        bound = SAFETY * torch.finfo(dtype).eps * dim * condition(name, dim, seed)
        assert ladj.dtype == dtype
        assert abs(ladj.double() - expected) <= bound


@each_flow
@pytest.mark.parametrize("dim", [1, 2, 20])
def test_ladj_is_slogdet(name, dim):
    """The same as above by torch's own log-determinant, for a whole batch."""
    flow, z = generic(name, dim), normal(6, dim)
    jacobians = torch.stack([jacobian(lambda p: flow(p)[0], row, vectorize=True) for row in z])
    expected = torch.linalg.slogdet(jacobians).logabsdet
    bound = SAFETY * torch.finfo(z.dtype).eps * dim * torch.linalg.cond(jacobians)
    assert ((flow(z)[1] - expected).abs() <= bound).all()


@each_dim
@each_dtype
def test_round_trip_both_ways(name, dim, dtype):
    flow = generic(name, dim, dtype)
    scale = SAFETY * torch.finfo(dtype).eps * dim**0.5
    for seed in range(1, 2 if dim >= LARGE else 5):
        start, bound = normal(dim, seed=seed, dtype=dtype), condition(name, dim, seed) * scale
        middle, ladj = flow(start)
        end, back = flow.inverse(middle)
        size = 1 + start.norm() + middle.norm()
        assert (end - start).norm() <= bound * size
        # The log-determinant moves with the point at which it is taken.
        assert (back + ladj).abs() <= bound * size * dim**0.5
        middle, ladj = flow.inverse(start)
        end, back = flow(middle)
        assert (end - start).norm() <= bound * (1 + start.norm() + middle.norm())


@each_flow
@pytest.mark.parametrize("dim", [1, 2, 20])
def test_a_known_preimage_changes_nothing(name, dim):
    """``inverse(x, z)`` gives the values and gradients of ``inverse(x)``."""
    flow, z = generic(name, dim), normal(7, dim)
    x = flow(z)[0].detach()
    got, got_grads = with_gradients(flow, lambda x: flow.inverse(x, z), x)
    expected, expected_grads = with_gradients(flow, flow.inverse, x)
    # Both differ by the rounding of z, and derivatives of the map are of order 1 here.
    for a, b in zip([*got, *got_grads], [*expected, *expected_grads], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@each_flow
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,), (0, 4)], ids=str)
def test_draws_lie_row_by_row(name, shape):
    """A user's target may take a view of the draws that it is given; and there may be none."""
    flow, z = generic(name, 4), normal(*shape)
    x, ladj = flow(z)
    assert x.shape == shape and ladj.shape == shape[:-1]
    assert x.is_contiguous()
    back, ladj = flow.inverse(x)
    assert back.shape == shape and ladj.shape == shape[:-1]


@each_flow
def test_a_known_preimage_is_believed(name):
    """No root find corrects a preimage that is given, which makes the path gradient cheap."""
    flow, x = generic(name, 2), normal(5, 2)
    if flow.fast != "sampling":
        pytest.skip("the inverse has a closed form")
    wrong = normal(5, 2, seed=2)
    assert not torch.allclose(flow.inverse(x, wrong)[0], flow.inverse(x)[0])


@each_flow
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("direction", ["forward", "inverse", "known"])
def test_gradcheck(name, dim, direction):
    """Gradients of value and ladj, by input and parameters, against differences in float64.

    Batched gradients (``is_grads_batched``) are checked along. Value and ladj are one tensor, as
    ``gradcheck`` passes over an output that has lost its graph.
    """
    flow = small(name, dim)
    point = normal(4, dim).requires_grad_()
    module, prefix = (flow, "") if direction == "forward" else (Inverse(flow), "flow.")
    keys = [prefix + key for key, _ in flow.named_parameters()]

    def function(point: Tensor, *values: Tensor) -> Tensor:
        values = dict(zip(keys, values, strict=True))
        arguments = (point,)
        if direction == "known":
            with torch.no_grad():
                arguments = (point, functional_call(module, values, (point,))[0])
        return joined(functional_call(module, values, arguments))

    assert torch.autograd.gradcheck(function, (point, *flow.parameters()), check_batched_grad=True)


@each_flow
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_second_derivatives(name, direction):
    """A Hessian of log q, as Laplace's method takes, is right too."""
    flow = small(name, 2)
    module = flow if direction == "forward" else Inverse(flow)
    keys = [key for key, _ in module.named_parameters()]

    def function(point: Tensor, *values: Tensor) -> Tensor:
        return joined(functional_call(module, dict(zip(keys, values, strict=True)), (point,)))

    point = normal(3, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(function, (point, *flow.parameters()))


@each_dim
@each_dtype
def test_gradient_reaches_every_parameter(name, dim, dtype):
    if dim == 1:
        pytest.skip("in R a reflection is −z, whatever its normal")
    flow, z = generic(name, dim, dtype), normal(5, dim, dtype=dtype)
    keys = ["input", *(key for key, _ in flow.named_parameters())]
    for function in (flow, flow.inverse):
        _, grads = with_gradients(flow, function, z)
        dead = [k for k, g in zip(keys, grads, strict=True) if not (g != 0).any()]
        assert not dead, f"no gradient for {dead}"


@each_dim
@each_dtype
@pytest.mark.parametrize("spread", [10.0, 0.0])
def test_extreme_parameters_stay_finite(name, dim, dtype, spread):
    """Parameters of standard deviation 10, and all exactly 0: values and gradients are finite."""
    seeds = 1 if spread == 0 else 2 if dim >= LARGE else 20
    for seed in range(seeds):
        flow = make(name, dim, dtype=dtype)
        with torch.no_grad():
            for i, parameter in enumerate(flow.parameters()):
                noise = normal(*parameter.shape, seed=1000 * i + seed, dtype=dtype)
                parameter.copy_(spread * noise)
        z = torch.cat([normal(4, dim, dtype=dtype), torch.zeros(1, dim, dtype=dtype)])
        for function in (flow, flow.inverse):
            values, grads = with_gradients(flow, function, z)
            assert all(t.isfinite().all() for t in (*values, *grads))


@each_flow
@each_dtype
def test_points_far_out_stay_finite(name, dtype):
    """10⁶ from the origin gradients are finite and the round trip closes."""
    flow, exact = generic(name, 2, dtype), generic(name, 2)
    for z in torch.tensor([[1e6, -1e6], [-1e6, 0.0], [1e3, 1e6]], dtype=dtype):
        for there, back, true in (
            (flow, flow.inverse, exact),
            (flow.inverse, flow, exact.inverse),
        ):
            (x, ladj), grads = with_gradients(flow, there, z)
            assert all(tensor.isfinite().all() for tensor in (ladj, *grads))
            slope = jacobian(lambda z, f=true: f(z)[0], z.double(), vectorize=True)
            bound = SAFETY * torch.finfo(dtype).eps * torch.linalg.cond(slope)
            assert (back(x)[0] - z).norm() <= bound * (z.norm() + x.norm())


@each_flow
@each_dtype
@each_device
def test_dtype_and_device_are_kept(name, dtype, device):
    flow = make(name, 3, dtype=dtype, device=device)
    z = normal(4, 3, dtype=dtype).to(device)
    for function in (flow, flow.inverse):
        values, grads = with_gradients(flow, function, z)
        for tensor in (*values, *grads, *flow.parameters(), *flow.buffers()):
            assert tensor.device.type == device
            assert tensor.dtype == dtype or not tensor.is_floating_point()


@each_flow
def test_nothing_is_made_on_the_cpu_by_the_way(name):
    """On torch's ``meta`` device a tensor from elsewhere is an error; no GPU is needed for it."""
    flow = make(name, 3, device="meta")
    z = torch.empty(4, 3, device="meta")
    x, ladj = flow.inverse(z) if flow.fast == "density" else flow(z)
    assert x.device.type == ladj.device.type == "meta"
    assert x.shape == (4, 3) and ladj.shape == (4,)


@each_flow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_is_made_on_the_cpu_and_moved_last(name, dtype, monkeypatch):
    """So a seed means the same start on every device; what is moved here stays where it is."""
    moved = []
    with monkeypatch.context() as patch:
        patch.setattr(Flow, "to", lambda self, device: moved.append((self, device)))
        there = make(name, 6, dtype=dtype, device="cuda")
    assert moved == [(there, "cuda")]
    here = make(name, 6, dtype=dtype)
    assert [*here.state_dict()] == [*there.state_dict()]
    for a, b in zip(here.state_dict().values(), there.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(here.buffers(), there.buffers(), strict=True):
        assert a.device == b.device


@each_flow
@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(name):
    flow, z = generic(name, 20), normal(50, 20)
    expected = [*flow(z), *flow.inverse(z)]
    on_gpu = make(name, 20, dtype=torch.float32, device="cuda").double()  # one seed, one start
    got = [*on_gpu(z.cuda()), *on_gpu.inverse(z.cuda())]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-11, atol=1e-11)


def start(name: str, **common: object) -> Tensor:
    """Everything that a new flow starts from, as one vector."""
    state = make(name, 6, **common).state_dict().values()
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(v.double().flatten() for v in state)])


def is_random(name: str) -> bool:
    """Whether construction draws: a fixed map, such as a reversal, does not."""
    before = torch.get_rng_state()
    start(name, generator=None)
    return not torch.equal(torch.get_rng_state(), before)


@each_flow
def test_a_seed_fixes_the_start(name):
    before = torch.get_rng_state()
    assert torch.equal(start(name, seed=3), start(name, seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    if is_random(name):
        assert not torch.equal(start(name, seed=3), start(name, seed=4))


@each_dim
def test_without_jitter_the_start_is_the_identity_or_a_rotation(name, dim):
    """A family without the identity, such as reflections, starts at a linear isometry instead."""
    flow = make(name, dim, jitter=0.0, dtype=torch.float64)
    z = torch.cat([torch.zeros(1, dim, dtype=torch.float64), normal(5, dim)])
    x, ladj = flow(z)
    # Rounding only: sums of d terms of size 1.
    bound = SAFETY * torch.finfo(z.dtype).eps * dim
    assert (ladj.abs() <= bound).all()
    assert (x[0].abs() <= bound).all()
    assert (torch.cdist(x, x) - torch.cdist(z, z)).abs().max() <= bound


@each_flow
def test_jitter_acts_and_has_the_family_s_default(name):
    default = lookup(name).cls.default_jitter
    assert torch.equal(start(name, jitter=None), start(name, jitter=default))
    if any(True for _ in make(name, 6).parameters()):
        assert not torch.equal(start(name, jitter=default), start(name, jitter=2 * default))


@each_flow
@pytest.mark.parametrize("dim", [1, 2, 20])
@pytest.mark.parametrize("length", [1, 3])
def test_a_run_is_its_layers_one_by_one(name, dim, length):
    flows, z = run_of(name, dim, length), normal(2, 3, dim)
    cls, layers = type(flows[0]), nn.ModuleList(flows)

    def forwards(z: Tensor) -> tuple[Tensor, Tensor]:
        return Flow.forward_run.__func__(cls, flows, z)

    def backwards(x: Tensor) -> tuple[Tensor, Tensor]:
        return Flow.inverse_run.__func__(cls, flows, x)

    x = forwards(z)[0].detach()
    cases = [
        (lambda z: cls.forward_run(flows, z), forwards, z),
        (lambda x: cls.inverse_run(flows, x), backwards, x),
        (lambda x: cls.inverse_run(flows, x, z), backwards, x),
        (lambda x: Flow.inverse_run.__func__(cls, flows, x, z), backwards, x),
    ]
    for function, one_by_one, point in cases:
        got, got_grads = with_gradients(layers, function, point)
        expected, expected_grads = with_gradients(layers, one_by_one, point)
        # Other orders of the same sums; the condition numbers here are below 10³.
        for a, b in zip([*got, *got_grads], [*expected, *expected_grads], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@each_flow
@given(batch=st.lists(st.integers(0, 4), max_size=3))
@example(batch=[])
@example(batch=[5])
@example(batch=[3, 4])
@example(batch=[0])
@settings(max_examples=15)
def test_any_batch_shape_is_point_by_point(name, batch):
    flow, z = generic(name, 3), normal(*batch, 3)
    for function in (flow, flow.inverse, lambda x: flow.inverse(x, z)):
        y, ladj = function(z)
        assert y.shape == z.shape and ladj.shape == z.shape[:-1]
    for function in (flow, flow.inverse):
        y, ladj = function(z)
        for index in product(*map(range, batch)):
            # Other orders of the same sums.
            one = function(z[index])
            torch.testing.assert_close((y[index], ladj[index]), one, rtol=1e-12, atol=1e-12)


@each_flow
@each_device
@pytest.mark.parametrize("direction", ["forward", "known"])
def test_vmap_over_stacked_parameters_is_the_loop(name, direction, device):
    """Restarts are one more batch dimension: values and gradients as of one flow at a time."""
    flows = [generic(name, 4, seed=seed).to(device) for seed in range(3)]
    points = normal(3, 5, 4).to(device).requires_grad_()
    preimages = [flow.inverse(x)[0].detach() for flow, x in zip(flows, points, strict=True)]
    modules = flows if direction == "forward" else [Inverse(flow) for flow in flows]
    extra = () if direction == "forward" else (torch.stack(preimages),)
    params, buffers = stack_module_state(modules)
    got = vmap(lambda p, b, *args: functional_call(modules[0], (p, b), args))(
        params, buffers, points, *extra
    )
    weights = normal(3, 5, 4, seed=92).to(device)
    scalar = (got[0] * weights).sum() + (got[1] * weights[..., 0]).sum()
    grads = torch.autograd.grad(scalar, [points, *params.values()])
    for r, module in enumerate(modules):
        y, ladj = module(points[r], *(e[r] for e in extra))
        scalar = (y * weights[r]).sum() + (ladj * weights[r, :, 0]).sum()
        by_point, *expected = torch.autograd.grad(scalar, [points, *module.parameters()])
        # The same operations in another order.
        ours = [got[0][r], got[1][r], *(g[r] for g in grads)]
        for a, b in zip(ours, [y, ladj, by_point[r], *expected], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@each_flow
@pytest.mark.parametrize("dim", [0, -1, 2.0, "2", True, None])
def test_a_wrong_dimension_is_refused(name, dim):
    with pytest.raises(ValueError, match="dim="):
        lookup(name).cls(dim)


@each_flow
def test_a_dimension_below_the_least_is_refused(name):
    cls = lookup(name).cls
    with pytest.raises(ValueError, match=f"at least {cls.min_dim}"):
        cls(cls.min_dim - 1)


@each_flow
@pytest.mark.parametrize("jitter", [-0.1, float("nan"), float("inf")])
def test_a_wrong_jitter_is_refused(name, jitter):
    with pytest.raises(ValueError, match="jitter="):
        make(name, 3, jitter=jitter)


@each_flow
def test_state_dict_loads_into_a_fresh_flow(name):
    flow, fresh = generic(name, 3), generic(name, 3, seed=1)
    fresh.load_state_dict(flow.state_dict())
    z = normal(4, 3)
    assert torch.equal(fresh(z)[0], flow(z)[0])


# Context: the map may depend on a vector beside its input.

CONDITIONAL = [name for name in FLOWS if lookup(name).cls.takes_context]
each_conditional = pytest.mark.parametrize("name", CONDITIONAL)


def conditional(name: str, dim: int, **common: object) -> Flow:
    return make(name, dim, context_dim=2, dtype=torch.float32, **common).double()


@each_conditional
@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("index", [0, 1])
def test_with_a_context_ladj_and_round_trip_are_exact(name, dim, index):
    flow, z, context = conditional(name, dim, index=index), normal(4, dim), normal(4, 2, seed=5)
    x, ladj = flow(z, context)
    for i in range(4):
        matrix = jacobian(lambda p, c=context[i]: flow(p, c)[0], z[i], vectorize=True)
        bound = SAFETY * torch.finfo(z.dtype).eps * dim * torch.linalg.cond(matrix)
        assert abs(torch.linalg.slogdet(matrix).logabsdet - ladj[i]) <= bound
        back, inverse_ladj = flow.inverse(x[i], context=context[i])
        assert (back - z[i]).norm() <= bound * (1 + z[i].norm() + x[i].norm())
        assert abs(inverse_ladj + ladj[i]) <= bound * (1 + z[i].norm() + x[i].norm())


@each_conditional
def test_the_context_acts_and_its_gradient_is_right(name):
    flow, point = conditional(name, 3), normal(2, 3)
    context = normal(2, 2, seed=5).requires_grad_()
    for function in (flow, lambda x, c: flow.inverse(x, context=c)):
        assert not torch.allclose(function(point, context)[0], function(point, -context)[0])
        assert torch.autograd.gradcheck(lambda c, f=function: joined(f(point, c)), (context,))
    known = flow(point, context.detach())[0].detach()
    got = torch.autograd.grad(flow.inverse(known, point, context)[0].sum(), context)[0]
    expected = torch.autograd.grad(flow.inverse(known, context=context)[0].sum(), context)[0]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@each_conditional
def test_a_batch_of_contexts_is_point_by_point(name):
    flow, z, context = conditional(name, 3), normal(2, 4, 3), normal(2, 4, 2, seed=5)
    x, ladj = flow(z, context)
    back, _ = flow.inverse(x, context=context)
    for index in product(range(2), range(4)):
        one = flow(z[index], context[index])
        torch.testing.assert_close((x[index], ladj[index]), one, rtol=1e-12, atol=1e-12)
        alone = flow.inverse(x[index], context=context[index])[0]
        torch.testing.assert_close(back[index], alone, rtol=1e-9, atol=1e-9)


@each_conditional
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("spread", [10.0, 0.0])
def test_extreme_contexts_and_parameters_stay_finite(name, dim, spread):
    """In float32, with parameters of standard deviation 10 and contexts up to a million."""
    for seed in range(1 if spread == 0 else 5):
        flow = make(name, dim, context_dim=2)
        with torch.no_grad():
            for i, parameter in enumerate(flow.parameters()):
                noise = normal(*parameter.shape, seed=1000 * i + seed, dtype=torch.float32)
                parameter.copy_(spread * noise)
        z = normal(3, dim, dtype=torch.float32)
        context = torch.tensor([[0.0, 0.0], [1.0, -10.0], [1e6, -1e6]])
        for function in (flow, lambda x, c, f=flow: f.inverse(x, context=c)):
            values, grads = with_gradients(flow, lambda p, f=function, c=context: f(p, c), z)
            assert all(t.isfinite().all() for t in (*values, *grads))


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in CONDITIONAL])
def test_a_flow_without_context_leaves_it_alone(name):
    flow, z, context = generic(name, 3), normal(4, 3), normal(4, 2)
    assert make(name, 3, context_dim=2).context_dim == 0
    assert torch.equal(flow(z, context)[0], flow(z)[0])


@each_flow
@pytest.mark.parametrize("option", ["context_dim", "index"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_a_wrong_context_dim_or_index_is_refused(name, option, value):
    with pytest.raises(ValueError, match=f"{option}="):
        make(name, 3, **{option: value})


@each_dtype
def test_a_scale_of_any_parameter_has_finite_gradients(dtype):
    """Between where softplus rounds to 0 and where 1/σ² leaves the range, too."""
    flow = lookup("scale").cls(5, dtype=dtype)
    with torch.no_grad():
        flow.rho.copy_(torch.tensor([-1e4, -200.0, -60.0, 60.0, 1e4]))
    z = normal(4, 5, dtype=dtype)
    for function in (flow, flow.inverse):
        values, grads = with_gradients(flow, function, z)
        assert all(t.isfinite().all() for t in (*values, *grads))
