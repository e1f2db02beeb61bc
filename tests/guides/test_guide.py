"""The guide: densities and draws that agree, as a module and as a torch distribution."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from nfvi.errors import FormulaError
from nfvi.flows import lookup, names
from nfvi.flows.networks.activations import ACTIVATIONS
from nfvi.formula.formula import Formula
from nfvi.guides.guide import Guide

FLOWS = [name for name in names() if lookup(name).name == name]
MIXED = "scale-planar*3-hh*2-radial*2-planar-loc"
BASES = ["normal", "laplace", "studentt(df=3)"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def seeded(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def make(formula: str = MIXED, dim: int = 3, *, seed: int = 0, **options: object) -> Guide:
    defaults = {"jitter": 0.3, "generator": seeded(seed), "dtype": torch.float64}
    return Guide(formula, dim, **defaults | options)


def move(guide: Guide, by: float = 0.1) -> None:
    """Change every parameter in place."""
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(by)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dim", [1, 2, 20])
@pytest.mark.parametrize("formula", [MIXED, "loc", "planar*8", "scale-hh*2-loc"])
def test_log_prob_of_a_draw_is_the_log_q_that_came_with_it(formula, dim, base):
    guide = make(formula, dim, base=base)
    x, log_q = guide.rsample_and_log_prob(50, generator=seeded(1))
    assert x.shape == (50, dim) and log_q.shape == (50,)
    # float64 and condition numbers below 10⁴, draws up to about 100.
    torch.testing.assert_close(guide.log_prob(x), log_q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_the_same_for_every_flow_of_the_registry(name):
    guide = make(f"{name}*2-loc", 4)
    x, log_q = guide.rsample_and_log_prob(20, generator=seeded(1))
    torch.testing.assert_close(guide.log_prob(x), log_q, rtol=1e-9, atol=1e-9)


def test_log_prob_is_base_minus_ladj_layer_by_layer():
    guide, z = make(), torch.randn(10, 3, generator=seeded(1), dtype=torch.float64)
    x, log_q = z, guide.base.log_prob(z)
    for flow in guide.flows:
        x, ladj = flow(x)
        log_q = log_q - ladj
    got_x, got = guide(z)
    torch.testing.assert_close(got_x, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, log_q, rtol=1e-12, atol=1e-12)
    assert torch.equal(guide.transform(z)[0], got_x)


@pytest.mark.parametrize("formula", [MIXED, "scale-hh*2-loc", "planar*4", "planar-scale"])
def test_a_known_base_point_changes_nothing(formula):
    """Values and gradients of log q: what the path gradient rests on."""
    guide, z = make(formula), torch.randn(10, 3, generator=seeded(1), dtype=torch.float64)
    x = guide.transform(z)[0].detach().requires_grad_()
    inputs = [x, *guide.parameters()]
    got, expected = guide.log_prob(x, z), guide.log_prob(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    pairs = (torch.autograd.grad(y.sum(), inputs) for y in (got, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_a_known_base_point_is_handed_to_the_flows(monkeypatch):
    """No root is sought then; without it one a planar layer is."""
    sought = []
    module = "nfvi.flows.numerics.planar_recursion.solve_tanh"
    monkeypatch.setattr(module, lambda c, slope: sought.append(1) or c)
    guide, z = make(), torch.zeros(2, 3, dtype=torch.float64)
    guide.inverse(guide.transform(z)[0], z)
    assert not sought
    guide.inverse(z)
    assert len(sought) == 4


@pytest.mark.parametrize("base", BASES[:2])
@pytest.mark.parametrize("formula", [*(f"{name}*2" for name in FLOWS), MIXED])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_integrates_to_one(formula, dim, base):
    """By the trapezoidal rule.

    Its error is step² / 12 times the jumps of the slope, of which the Laplace density, the centre
    of a radial flow and the knots of a spline have a few; they grow with the parameters, as does
    what lies outside ±20, here less than exp(−10) = 5e-5 but for the heavy tails of sinharcsinh.
    """
    for flow in Formula.parse(formula):
        if dim < lookup(flow.name).cls.min_dim:
            pytest.skip(f"{flow.name} needs a higher dimension")
    guide = make(formula, dim, base=base, jitter=0.2)
    grid = torch.linspace(-20, 20, 2001 if dim == 1 else 401, dtype=torch.float64)
    step = (grid[1] - grid[0]).item()
    points = torch.cartesian_prod(*[grid] * dim).reshape(-1, dim)
    with torch.no_grad():
        total = guide.log_prob(points).exp().sum().item() * step**dim
    assert abs(total - 1) <= 5e-5 + step**2 / 4


def test_reparametrised_gradient():
    """E_q[aᵀx] of μ + σ ⊙ z has the gradient a by μ and a ⊙ z̄ ⊙ σ′ by ρ, draw by draw."""
    guide = make("scale-loc")
    scale, loc = guide.flows
    a = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x, log_q = guide.rsample_and_log_prob(40, generator=seeded(3))
    z = guide.base_sample(40, generator=seeded(3))
    by_rho, by_loc = torch.autograd.grad((x @ a).mean(), [scale.rho, loc.loc], retain_graph=True)
    torch.testing.assert_close(by_loc, a)
    torch.testing.assert_close(by_rho, a * z.mean(0) * scale.rho.sigmoid())
    # log q(x) = log q₀(z) − Σ log σ: the draw's own movement leaves only the second term.
    (entropy,) = torch.autograd.grad(log_q.mean(), [scale.rho])
    torch.testing.assert_close(entropy, -scale.rho.sigmoid() / nn.functional.softplus(scale.rho))


def test_sample_is_rsample_without_a_graph():
    guide = make()
    x, _ = guide.rsample_and_log_prob(5, generator=seeded(2))
    draws = guide.sample(5, generator=seeded(2))
    assert torch.equal(draws, x.detach())
    assert not draws.requires_grad


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    guide = make()
    guide.sample(5, generator=seeded(0))
    guide.rsample_and_log_prob(5, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), before)
    guide.sample(5)
    assert not torch.equal(torch.get_rng_state(), before)


def test_nothing_is_cached():
    """After a step in place the density and the draws are the new ones, between two calls too."""
    guide, x = make(), torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    draw, old_q = guide.rsample_and_log_prob(5, generator=seeded(2))
    old = guide.log_prob(x), guide.log_prob(draw.detach())
    move(guide)
    fresh = make(seed=9)
    fresh.load_state_dict(guide.state_dict())
    assert torch.equal(guide.log_prob(x), fresh.log_prob(x))
    assert not torch.allclose(guide.log_prob(x), old[0])
    assert torch.equal(guide.log_prob(draw.detach()), fresh.log_prob(draw.detach()))
    assert not torch.allclose(guide.log_prob(draw.detach()), old_q)


def test_state_dict_loads_into_a_fresh_guide():
    guide, fresh = make(), make(seed=5)
    x = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    assert not torch.allclose(fresh.log_prob(x), guide.log_prob(x))
    assert not fresh.load_state_dict(guide.state_dict()).missing_keys
    assert torch.equal(fresh.log_prob(x), guide.log_prob(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(dim=4).load_state_dict(guide.state_dict())


def test_a_deep_copy_is_independent():
    guide = make()
    x = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    before, other = guide.log_prob(x), copy.deepcopy(guide)
    assert torch.equal(other.log_prob(x), before)
    move(other)
    assert torch.equal(guide.log_prob(x), before)
    assert not torch.allclose(other.log_prob(x), before)


def test_a_seed_fixes_the_start():
    first, second, third = (make(seed=s).state_dict() for s in (4, 4, 5))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("base", BASES)
def test_dtype_and_device_act(base, dtype, device):
    guide = make(base=base, dtype=dtype, device=device)
    x, log_q = guide.rsample_and_log_prob(4, generator=seeded(0, device))
    for tensor in (x, log_q, guide.sample(4), guide.log_prob(x), *guide.parameters()):
        assert tensor.dtype == dtype and tensor.device.type == device
    assert guide.dtype == dtype and guide.device.type == device


def test_moving_a_guide_moves_its_draws():
    assert make(dtype=torch.float32).double().sample(2).dtype == torch.float64
    assert Guide("loc", 2).sample(2).dtype == torch.get_default_dtype()


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu():
    guide = make()
    x = torch.randn(50, 3, generator=seeded(1), dtype=torch.float64)
    on_gpu = make(device="cuda")  # the seed means the same start
    torch.testing.assert_close(on_gpu.log_prob(x.cuda()).cpu(), guide.log_prob(x))


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (0,), (2, 0)])
def test_any_batch_shape(shape):
    guide = make()
    z = guide.base_sample(*shape, generator=seeded(1))
    x, log_q = guide(z)
    assert x.shape == (*shape, 3)
    assert log_q.shape == guide.log_prob(x).shape == shape


@pytest.mark.parametrize("formula", ["loc", "scale", "planar", MIXED])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (), (1,)])
def test_points_of_another_width_are_refused(formula, shape):
    """A guide on R or R² must not stretch over them by broadcasting."""
    points = torch.zeros(shape, dtype=torch.float64)
    guide = make(formula, 1 if shape != (1,) else 2)
    for function in (guide.log_prob, guide.inverse, guide.transform, guide):
        with pytest.raises(ValueError, match=f"dim={guide.dim}"):
            function(points)


def test_restarts_are_one_more_batch_dimension():
    guides, z = [make(seed=s) for s in range(3)], make().base_sample(6, generator=seeded(1))
    params, buffers = stack_module_state(guides)
    x, log_q = vmap(lambda p, b: functional_call(guides[0], (p, b), (z,)))(params, buffers)
    grads = torch.autograd.grad(log_q.sum() + x.square().sum(), list(params.values()))
    for r, guide in enumerate(guides):
        one, one_q = guide(z)
        torch.testing.assert_close((x[r], log_q[r]), (one, one_q), rtol=1e-11, atol=1e-11)
        expected = torch.autograd.grad(one_q.sum() + one.square().sum(), list(guide.parameters()))
        for a, b in zip(grads, expected, strict=True):
            torch.testing.assert_close(a[r], b, rtol=1e-10, atol=1e-10)


def test_parameters_are_tracked_in_the_order_of_application():
    guide = Guide("planar*2-radial-loc", 2)
    tracked = guide.tracked_names()
    assert list(tracked) == list(dict(guide.named_parameters()))
    assert list(tracked.values()) == [
        *("u_0", "w_0", "b_0", "u_1", "w_1", "b_1"),
        *("a_2", "b_2", "z_ref_2", "loc_3"),
    ]


@pytest.mark.parametrize(
    ("formula", "dim", "base"),
    [("planer", 2, "normal"), ("planar", 0, "normal"), ("planar", 2, "cauchy"), ("", 2, "normal")],
)
def test_what_cannot_be_built_is_refused(formula, dim, base):
    with pytest.raises(FormulaError):
        Guide(formula, dim, base=base)


# As a torch distribution.


def test_distribution_has_the_shapes_of_a_vector():
    q = make().distribution()
    assert q.event_shape == (3,) and q.batch_shape == () and q.has_rsample
    for shape in ((), (5,), (2, 4)):
        assert q.sample(shape).shape == q.rsample(shape).shape == (*shape, 3)
        assert q.log_prob(q.sample(shape)).shape == shape
    assert q.support.check(q.sample((5,))).all()


def test_distribution_draws_are_reparametrised():
    guide = make("scale-loc")
    q = guide.distribution()
    (by_loc,) = torch.autograd.grad(q.rsample((7,)).sum(), [guide.flows[1].loc])
    assert torch.equal(by_loc, torch.full((3,), 7.0, dtype=torch.float64))
    assert not q.sample((7,)).requires_grad


def test_distribution_and_guide_are_one():
    guide = make()
    q, x = guide.distribution(), guide.sample(5, generator=seeded(0))
    assert torch.equal(q.log_prob(x), guide.log_prob(x))
    move(guide)
    assert torch.equal(q.log_prob(x), guide.log_prob(x))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = q.sample((4,))
        torch.manual_seed(1)
        assert torch.equal(q.sample((4,)), first)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.zeros(5, 2), "event_shape"),
        (torch.zeros(()), "event_shape|dimension"),
        (torch.full((3,), torch.nan), "support"),
    ],
)
def test_distribution_refuses_wrong_values(value, says):
    q = make(dtype=torch.float32).distribution()
    with pytest.raises(ValueError, match=says):
        q.log_prob(value)


def test_distribution_goes_into_torch_s_own_tools():
    """As the base of a ``TransformedDistribution``, and pushed back by it."""
    guide = make()
    shift = torch.distributions.AffineTransform(1.0, 2.0, event_dim=1)
    q = torch.distributions.TransformedDistribution(guide.distribution(), [shift])
    x = q.rsample((5,))
    expected = guide.log_prob((x - 1) / 2) - 3 * torch.log(torch.tensor(2.0, dtype=x.dtype))
    torch.testing.assert_close(q.log_prob(x), expected)


def saved(guide: Guide) -> Guide:
    """A fresh guide of other parameters, with the state of this one out of a file."""
    file = io.BytesIO()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    fresh = make(str(guide.formula), guide.dim, seed=9, context_dim=guide.context_dim)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


COPIES = {"pickle": lambda g: pickle.loads(pickle.dumps(g)), "deepcopy": copy.deepcopy}
ACTIVE = [f"maf(activation={name})" for name in ACTIVATIONS]


@pytest.mark.parametrize("how", [*COPIES, "state dict"])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("flow", [*FLOWS, *ACTIVE])
def test_copies_are_equal_and_on_their_own(flow, context_dim, how):
    if context_dim and not lookup(flow.split("(")[0]).cls.takes_context:
        pytest.skip("takes no context")
    guide = make(f"{flow}*2-loc", 3, context_dim=context_dim)
    z = torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)
    context = z[:, :2] if context_dim else None
    expected = [*guide.transform(z, context), guide.log_prob(z, context=context)]
    other = saved(guide) if how == "state dict" else COPIES[how](guide)
    move(guide)
    got = [*other.transform(z, context), other.log_prob(z, context=context)]
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    if how != "state dict":
        assert other.formula == guide.formula
