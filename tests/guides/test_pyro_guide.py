"""The formula guide under Pyro's own tools: SVI, Predictive, psis_diagnostic, NeuTra."""

from __future__ import annotations

import copy
import io
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoContinuous, init_to_value
from pyro.infer.importance import psis_diagnostic
from pyro.infer.reparam import NeuTraReparam

from nfvi.errors import FormulaError, TargetError
from nfvi.guides.bases import Base, Normal
from nfvi.guides.guide import Guide
from nfvi.guides.pyro_guide import AutoFlow
from nfvi.guides.pyro_posterior import FlowPosterior
from nfvi.targets import PyroTarget

pytestmark = pytest.mark.pyro_params

Y = torch.tensor([2.1, 0.4, -0.3, 1.2, 0.9])


def regression(y):
    """Scalar, positive, simplex and plated sites; written so that particles can be a plate."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 0.5))
    w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("groups", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta + w[..., 0], 0.5), obs=y)


def conjugate(y):
    """mu | y is N(n ȳ / (n + 1), 1 / (n + 1))."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def train(model, guide, *args, steps=300, lr=0.03, elbo=None):
    elbo = elbo or Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.99}), elbo)
    return [svi.step(*args) for _ in range(steps)]


@pytest.mark.parametrize("formula", ["scale-loc", "planar*2-loc", "radial-hh-loc"])
@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(),
        Trace_ELBO(num_particles=3),
        Trace_ELBO(num_particles=3, vectorize_particles=True),
        TraceMeanField_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    ],
    ids=["one", "loop", "vectorized", "mean field"],
)
def test_svi_trains_every_parameter(formula, elbo):
    guide = AutoFlow(regression, formula, seed=1)
    guide(Y)
    before = copy.deepcopy(guide.state_dict())
    losses = train(regression, guide, Y, steps=3, elbo=elbo)
    assert all(math.isfinite(loss) for loss in losses)
    for name, value in guide.state_dict().items():
        assert (name == "latent_size") == torch.equal(value, before[name]), name


def test_svi_finds_a_conjugate_posterior():
    """The exact posterior is in the family, so that the ELBO reaches the evidence."""
    guide = AutoFlow(conjugate, "scale-loc", seed=0)
    assert isinstance(guide, AutoContinuous)
    train(conjugate, guide, Y, steps=400, lr=0.05)
    n = len(Y)
    flow = guide.get_posterior()
    # The shift of the flow is the posterior's mean, and its log-density there gives the sd.
    mean = Y.sum() / (n + 1)
    draws = flow.sample((4000,))
    sd = (n + 1) ** -0.5
    assert abs(draws.mean() - mean) < 0.1 * sd  # the optimiser's noise, and 6 standard errors
    assert abs(draws.std() / sd - 1) < 0.1
    covariance = torch.eye(n) + 1.0
    evidence = dist.MultivariateNormal(torch.zeros(n), covariance).log_prob(Y)
    exact = Trace_ELBO(num_particles=2000, vectorize_particles=True, max_plate_nesting=1)
    assert abs(exact.loss(conjugate, guide, Y) + evidence) < 0.02
    median = guide.median(Y)["mu"]
    quantiles = guide.quantiles([0.05, 0.5, 0.95], Y)["mu"]
    assert median.shape == ()
    assert abs(median - quantiles[1]) < 0.2 * sd
    # 4000 draws: the standard error of a 5% quantile is 0.034 sd.
    expected = mean + sd * torch.tensor([-1.645, 0.0, 1.645])
    torch.testing.assert_close(quantiles, expected, atol=0.25 * sd, rtol=0)


def test_guide_trace_has_the_density_of_its_sites():
    """log q of the sites is log q of the latent vector less the Jacobians of the supports."""
    guide = AutoFlow(regression, "planar*3", seed=2)
    trace = poutine.trace(guide).get_trace(Y)
    trace.compute_log_prob()
    latent = trace.nodes["_AutoFlow_latent"]
    z = latent["value"]
    torch.testing.assert_close(latent["log_prob"], guide.flow.log_prob(z.detach().clone()))
    target = PyroTarget(regression, Y)
    sites = target.constrain(z.detach()[None])
    for name, value in sites.items():
        torch.testing.assert_close(trace.nodes[name]["value"].detach(), value[0])
    model = poutine.trace(poutine.replay(regression, trace=trace)).get_trace(Y)
    jacobian = sum(trace.nodes[name]["log_prob"].sum() for name in sites)
    log_weight = model.log_prob_sum() - trace.log_prob_sum()
    expected = target.log_prob(z.detach()[None])[0] - latent["log_prob"]
    torch.testing.assert_close(log_weight, expected)
    assert abs(jacobian) > 0.1


def test_same_elbo_as_through_the_target():
    guide = AutoFlow(regression, "planar*2-scale-loc", seed=3)
    guide(Y)
    target = PyroTarget(regression, Y)
    n = 4000
    elbo = Trace_ELBO(num_particles=n, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        ours = target.log_prob(z := guide.flow.sample(n)) - guide.flow.log_prob(z)
        theirs = -elbo.loss(regression, guide, Y)
    se = float(ours.std()) * (2 / n) ** 0.5
    assert abs(theirs - float(ours.mean())) < 5 * se  # false alarm 6e-7


def test_predictive():
    guide = AutoFlow(regression, "planar*2", seed=0)
    guide(Y)
    for parallel in (False, True):
        predictive = Predictive(regression, guide=guide, num_samples=7, parallel=parallel)
        draws = predictive(Y)
        assert draws["theta"].reshape(7, -1).shape == (7, 5)
        assert bool((draws["tau"] > 0).all())
        torch.testing.assert_close(draws["w"].sum(-1), torch.ones_like(draws["w"].sum(-1)))


def test_psis_diagnostic_tells_a_good_guide_from_a_bad_one():
    good = AutoFlow(conjugate, "scale-loc", seed=0)
    train(conjugate, good, Y, steps=300, lr=0.05)
    khat = psis_diagnostic(conjugate, good, Y, num_particles=2000)
    assert khat < 0.5
    pyro.clear_param_store()
    bad = AutoFlow(conjugate, "scale-loc", seed=0)
    bad(Y)
    with torch.no_grad():
        bad.flow.flows[0].rho.fill_(-4.0)  # far too narrow: the weights have no variance
    assert psis_diagnostic(conjugate, bad, Y, num_particles=2000) > 0.7
    # Planar flows have no closed inverse; under 8 plates as by default, too.
    bent = AutoFlow(regression, "planar*2", seed=0)
    assert math.isfinite(psis_diagnostic(regression, bent, Y, num_particles=200))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_loads_into_a_fresh_guide(dtype):
    y = Y.to(dtype)

    def model(y):
        x = pyro.sample("x", dist.Normal(y.new_zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(x.sum(-1, keepdim=True), 1.0), obs=y)

    guide = AutoFlow(model, "planar*2-loc", base="studentt(df=5)", seed=0)
    train(model, guide, y, steps=3)
    file = io.BytesIO()
    torch.save(guide.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    fresh = AutoFlow(model, "planar*2-loc", base="studentt(df=5)")
    assert fresh.load_state_dict(state).missing_keys == []
    z = torch.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)
    expected = guide.get_posterior().log_prob(z)
    assert expected.dtype == dtype
    assert torch.equal(fresh.get_posterior().log_prob(z), expected)
    fresh(y)  # a call, with the first guide's parameters still in Pyro's store
    assert torch.equal(fresh.get_posterior().log_prob(z), expected)
    train(model, fresh, y, steps=3)
    assert not torch.equal(fresh.get_posterior().log_prob(z), expected)
    assert torch.equal(guide.get_posterior().log_prob(z), expected)

    other = AutoFlow(model, "planar*3-loc")
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state)
    wrong = AutoFlow(conjugate, "planar*2-loc")
    wrong.load_state_dict(state)
    with pytest.raises(TargetError, match=r"loaded with dim=3.*take 1 dimensions"):
        wrong(y)


def test_state_dict_of_an_uncalled_guide_is_empty_and_loads():
    fresh = AutoFlow(conjugate, "scale-loc")
    fresh.load_state_dict(AutoFlow(conjugate, "scale-loc").state_dict())
    assert fresh.flow is None


def test_guides_do_not_share_or_steal_parameters():
    """Pyro names them alike; each must train its own."""
    first, second = (AutoFlow(conjugate, "scale-loc", seed=seed) for seed in (1, 2))
    for guide in (first, second, first):
        guide(Y)
        before = copy.deepcopy([g.state_dict() if g.flow else {} for g in (first, second)])
        train(conjugate, guide, Y, steps=2)
        for g, old in zip((first, second), before, strict=True):
            for name, value in old.items():
                if name != "latent_size":
                    assert torch.equal(g.state_dict()[name], value) == (g is not guide)


def test_parameters_loaded_into_the_store_are_taken():
    guide = AutoFlow(conjugate, "scale-loc", seed=0)
    train(conjugate, guide, Y, steps=5)
    file = io.BytesIO()
    torch.save(pyro.get_param_store().get_state(), file)
    file.seek(0)
    pyro.clear_param_store()
    pyro.get_param_store().set_state(torch.load(file, weights_only=False))
    fresh = AutoFlow(conjugate, "scale-loc", seed=1)
    fresh(Y)
    for name, value in guide.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_seed_fixes_the_start():
    states = []
    for seed in (0, 0, 1):
        guide = AutoFlow(regression, "planar*2", seed=seed)
        guide(Y)
        states.append(guide.state_dict())
    assert torch.equal(states[0]["flow.flows.0.u"], states[1]["flow.flows.0.u"])
    assert not torch.equal(states[0]["flow.flows.0.u"], states[2]["flow.flows.0.u"])
    exact = AutoFlow(regression, "loc", jitter=0.0)
    exact(Y)
    assert bool((exact.flow.flows[0].loc == 0).all())


def test_what_is_wrong_is_said_early():
    with pytest.raises(FormulaError, match="planer"):
        AutoFlow(conjugate, "planer*8")
    with pytest.raises(FormulaError):
        AutoFlow(conjugate, "planar", base="cauchi")
    with pytest.raises(TargetError, match="call it once with the model's arguments"):
        AutoFlow(conjugate, "planar").get_posterior()


@pytest.mark.parametrize("formula", ["scale-loc", "planar*2", "radial-hh"])
@pytest.mark.parametrize("base", ["normal", "laplace"])
def test_the_guide_starts_where_it_is_told_and_as_wide(formula, base):
    values = {
        "mu": torch.tensor(1.5),
        "tau": torch.tensor(0.3),
        "w": torch.tensor([0.2, 0.5, 0.3]),
        "theta": torch.linspace(-1, 1, 5),
    }
    guide = AutoFlow(
        regression, formula, base=base, jitter=0.0, seed=0,
        init_loc_fn=init_to_value(values=values), init_scale=0.01,
    )  # fmt: skip
    guide(Y)
    torch.manual_seed(0)
    found = guide.median(Y)
    # 4 000 draws of sd 0.01 tell a median to 0.0002; a radial flow bends at the start.
    for name, value in values.items():
        torch.testing.assert_close(found[name], value, atol=5e-3, rtol=0.01)
    draws = guide.flow.sample(20_000, generator=torch.Generator().manual_seed(0))
    if formula == "scale-loc":
        torch.testing.assert_close(draws.std(0), torch.full((9,), 0.01), rtol=0.05, atol=0)


def test_place_and_scale_have_the_defaults_of_pyro_and_go_together():
    placed = AutoFlow(
        conjugate, "loc", jitter=0.0, init_loc_fn=init_to_value(values={"mu": torch.tensor(2.0)})
    )
    placed(Y)
    assert float(placed.flow.placement.tril) == pytest.approx(0.1)
    narrow = AutoFlow(conjugate, "loc", jitter=0.0, init_scale=0.5)
    narrow(Y)
    assert float(narrow.flow.placement.tril) == 0.5 and float(narrow.flow.placement.loc) == 0.0
    plain = AutoFlow(conjugate, "loc")
    plain(Y)
    assert plain.flow.placement is None


def test_a_placed_guide_loads_and_trains():
    start = init_to_value(values={"mu": torch.tensor(5.0)})
    guide = AutoFlow(conjugate, "scale-loc", seed=0, init_loc_fn=start)
    train(conjugate, guide, Y, steps=20)
    fresh = AutoFlow(conjugate, "scale-loc")
    fresh.load_state_dict(guide.state_dict())
    noise = torch.linspace(-2, 2, 5).unsqueeze(1)
    torch.testing.assert_close(fresh.flow(noise)[0], guide.flow(noise)[0])


def test_plates_that_subsample_are_shared_with_the_model():
    """The plate of the guide chooses the rows, and the model takes them."""
    seen = []

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample_size=2) as i:
            seen.append(i)
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[i])

    def plates(y):
        return pyro.plate("data", len(y), subsample=torch.tensor([1, 4]))

    guide = AutoFlow(model, "scale-loc", seed=0, create_plates=plates)
    train(model, guide, Y, steps=3, elbo=Trace_ELBO())
    assert all(i.tolist() == [1, 4] for i in seen[1:]) and len(seen) == 4
    posterior = AutoFlow(model, "scale-loc", seed=0, create_plates=lambda y: [plates(y)])
    losses = train(model, posterior, Y, steps=2, elbo=Trace_ELBO())
    assert all(math.isfinite(loss) for loss in losses)


class NoSpread(Normal):
    sd = Base.sd


def test_starts_plates_and_levels_that_are_wrong_are_refused_by_name():
    for wrong in (0.0, -1.0, math.nan, "0.1", True):
        with pytest.raises(ValueError, match="init_scale must be a positive number"):
            AutoFlow(conjugate, "planar", init_scale=wrong)
    with pytest.raises(TypeError, match=r"init_loc_fn= must be a function of a site.* got 3"):
        AutoFlow(conjugate, "planar", init_loc_fn=3)
    with pytest.raises(TypeError, match="create_plates= must be a function of the model's"):
        AutoFlow(conjugate, "planar", create_plates=[])
    with pytest.raises(ValueError, match="init_scale= need the spread of the base"):
        AutoFlow(conjugate, "planar", base=NoSpread(), init_scale=0.1)
    guide = AutoFlow(conjugate, "planar", create_plates=lambda y: "data")
    with pytest.raises(TypeError, match=r"create_plates= must return a pyro\.plate or a list"):
        guide(Y)
    guide = AutoFlow(conjugate, "planar")
    for wrong in ([1.2], [-0.1, 0.5], [math.nan]):
        with pytest.raises(ValueError, match="quantiles must be from 0 to 1"):
            guide.quantiles(wrong, Y)
    with pytest.raises(TypeError, match="quantiles must be several levels"):
        guide.quantiles(0.5, Y)


def test_quantiles_are_off_by_the_error_that_is_told():
    guide = AutoFlow(conjugate, "loc", jitter=0.0)
    guide(Y)
    torch.manual_seed(0)
    levels = torch.tensor([0.05, 0.5, 0.9])
    found = dist.Normal(0.0, 1.0).cdf(guide.quantiles(levels, Y)["mu"])
    error = (levels * (1 - levels) / 4000).sqrt()
    # Five standard errors, and half a step between order statistics.
    assert bool(((found - levels).abs() < 5 * error + 2e-4).all())


def test_enumerated_sites_are_left_to_the_elbo():
    @config_enumerate
    def mixture(y):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            k = pyro.sample("k", dist.Bernoulli(0.3)).long()
            pyro.sample("y", dist.Normal(pyro.ops.indexing.Vindex(loc)[..., k], 1.0), obs=y)

    guide = AutoFlow(mixture, "planar*2", seed=0)
    losses = train(mixture, guide, Y, steps=5, elbo=TraceEnum_ELBO(max_plate_nesting=1))
    assert guide.flow.dim == 2
    assert all(math.isfinite(loss) for loss in losses)


def test_neutra():
    """HMC's target in the flow's coordinates: the model's density and the flow's Jacobian."""
    guide = AutoFlow(conjugate, "planar*2-scale-loc", seed=0)
    guide(Y)
    neutra = NeuTraReparam(guide)
    warped = neutra.reparam(conjugate)
    z = torch.tensor([0.4])
    trace = poutine.trace(poutine.condition(warped, {"mu_shared_latent": z})).get_trace(Y)
    x, ladj = guide.flow.transform(z)
    plain = poutine.trace(poutine.condition(conjugate, {"mu": x[0]})).get_trace(Y)
    torch.testing.assert_close(trace.log_prob_sum(), plain.log_prob_sum() + ladj)
    torch.testing.assert_close(neutra.transform_sample(z)["mu"], x[0])


class TestFlowPosterior:
    """The density of a draw, which is remembered, must never be a wrong one."""

    @pytest.fixture
    def posterior(self):
        guide = Guide("planar*2-loc", 3, jitter=0.5, generator=torch.Generator().manual_seed(0))
        return FlowPosterior(guide)

    def test_remembered_density_is_the_density(self, posterior):
        for batch, shape in (((), (5,)), ((4, 1), ()), ((4,), (2,))):
            q = posterior.expand(torch.Size(batch))
            x = q.rsample(torch.Size(shape))
            assert x.shape == (*shape, *batch, 3)
            torch.testing.assert_close(q.log_prob(x), posterior.guide.log_prob(x.detach().clone()))

    def test_gradient_is_that_of_an_independent_evaluation(self, posterior):
        parameters = list(posterior.guide.parameters())
        z = posterior.guide.base_sample(6)
        posterior.guide.base_sample = lambda *shape: z
        x = posterior.rsample(torch.Size([6]))
        # The density of a shifted draw does not depend on the shift, which is therefore left out.
        ours = torch.autograd.grad(posterior.log_prob(x).sum(), parameters[:-1])
        y = posterior.guide.transform(z)[0]
        theirs = torch.autograd.grad(posterior.guide.log_prob(y).sum(), parameters[:-1])
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

    def test_draw_without_gradient_is_a_constant(self, posterior):
        x = posterior.sample(torch.Size([6]))
        parameters = list(posterior.guide.parameters())
        ours = torch.autograd.grad(posterior.log_prob(x).sum(), parameters)
        theirs = torch.autograd.grad(posterior.guide.log_prob(x).sum(), parameters)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)

    def test_forgotten_when_parameters_or_draw_change(self, posterior):
        with torch.no_grad():
            x = posterior.rsample(torch.Size([6]))
            before = posterior.log_prob(x)
            posterior.guide.flows[0].u.add_(0.3)
            after = posterior.log_prob(x)
            torch.testing.assert_close(after, posterior.guide.log_prob(x))
            assert not torch.allclose(after, before, atol=1e-3)
            x = posterior.rsample(torch.Size([6]))
            x.add_(1.0)
            torch.testing.assert_close(posterior.log_prob(x), posterior.guide.log_prob(x))

    def test_no_gradient_where_none_is_asked_for(self, posterior):
        x = posterior.rsample(torch.Size([6]))
        with torch.no_grad():
            assert not posterior.log_prob(x).requires_grad
