"""A Pyro model as a target: its density against Pyro's own, its sites, and what it refuses."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.reparam import LocScaleReparam
from torch.distributions import constraints

from nfvi.errors import TargetError
from nfvi.targets import PyroTarget, as_target, unnormalised_terms

F64 = torch.float64
Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=F64)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=F64)
DATA = torch.linspace(-2.0, 3.0, 12, dtype=F64)


@pytest.fixture
def double():
    """Numbers in a model become float64 tensors, as its data are, so that comparisons are sharp."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


def eight_schools():
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, SIGMA), obs=Y)


def intervals():
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    u = pyro.sample("u", dist.Uniform(-1.0, 4.0))
    b = pyro.sample("b", dist.Pareto(1.5, 3.0))
    with pyro.plate("data", 12):
        pyro.sample("y", dist.Normal(u * p, b), obs=DATA)


def simplex():
    w = pyro.sample("w", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    with pyro.plate("rows", 2):
        v = pyro.sample("v", dist.Dirichlet(torch.ones(4)))
        pyro.sample("n", dist.Multinomial(9, v), obs=torch.tensor([[1.0, 2, 3, 3], [4, 5, 0, 0]]))
    pyro.factor("pull", (w * torch.arange(3.0)).sum(-1))


def correlation():
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(3), 0.5).to_event(1))
    chol = pyro.sample("chol", dist.LKJCholesky(3, 2.0))
    with pyro.plate("data", 4):
        pyro.sample(
            "y",
            dist.MultivariateNormal(torch.zeros(3), scale_tril=scale[:, None] * chol),
            obs=DATA.reshape(4, 3),
        )


def matrices():
    loc = pyro.sample("loc", dist.MultivariateNormal(torch.zeros(2), 2.0 * torch.eye(2)))
    a = pyro.sample("a", dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
    s = pyro.sample("s", dist.Wishart(torch.tensor(5.0), torch.eye(2)))
    free = pyro.sample("free", dist.ImproperUniform(constraints.lower_cholesky, (), (2, 2)))
    pyro.factor("tame", -free.square().sum((-1, -2)))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.MultivariateNormal(a @ loc, torch.eye(3)), obs=torch.ones(3, 3))
    pyro.sample("x", dist.MultivariateNormal(loc, s), obs=torch.tensor([0.5, -1.0]))


def nested_plates():
    rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 4, dim=-1)
    mu = pyro.sample("mu", dist.StudentT(4.0, 0.0, 1.0))
    with rows:
        r = pyro.sample("r", dist.Normal(mu, 1.0))
    with columns:
        c = pyro.sample("c", dist.Gamma(2.0, 1.0))
    with rows, columns:
        pyro.sample("y", dist.Normal(r, c), obs=DATA.reshape(3, 4))
    for i in pyro.plate("alone", 2):
        pyro.sample(f"s_{i}", dist.Exponential(1.0 + i))


def subsampled():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 12, subsample=torch.tensor([1, 5, 7])) as i:
        pyro.sample("y", dist.Normal(mu, 1.0), obs=DATA[i])


def minibatch():
    """A plate that scales the data it is given, whichever indices it draws."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 120, subsample_size=12):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=DATA)


def masked_and_scaled():
    mu = pyro.sample("mu", dist.Laplace(0.0, 1.0).expand([2]).to_event(1))
    with poutine.scale(scale=0.3), pyro.plate("data", 12), poutine.mask(mask=DATA > 0):
        pyro.sample("y", dist.Cauchy(mu[0], mu[1].exp()), obs=DATA)
    with poutine.mask(mask=False):
        pyro.sample("ignored", dist.Normal(mu[0], 1.0), obs=torch.tensor(50.0))
    pyro.sample("noise", dist.Normal(0.0, 1.0).mask(torch.tensor(True)))


def unplated_batch():
    beta = pyro.sample("beta", dist.Normal(torch.zeros(5), 1.0))
    pyro.sample("y", dist.Bernoulli(logits=beta), obs=torch.tensor([1.0, 0, 0, 1, 1]))
    pyro.sample("k", dist.Poisson(beta.exp().sum()), obs=torch.tensor(3.0))


def reparametrised():
    with poutine.reparam(config={"theta": LocScaleReparam(0.0)}):
        _centred()


def _centred():
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, 3.0))
        pyro.sample("y", dist.Normal(theta, SIGMA), obs=Y)


def ordered_and_bounded():
    cuts = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
    cuts = dist.TransformedDistribution(cuts, dist.transforms.OrderedTransform())
    c = pyro.sample("cuts", cuts)
    angle = pyro.sample("angle", dist.VonMises(0.3, 2.0))
    lower = pyro.sample("lower", dist.ImproperUniform(constraints.less_than(2.0), (), ()))
    pyro.factor("tame", -(c.square().sum(-1) * angle.square()) + lower)
    with pyro.plate("data", 12):
        pyro.sample("y", dist.OrderedLogistic(DATA, c), obs=torch.arange(12) % 4)


def correlation_matrix():
    pyro.sample("r", dist.LKJ(3, 1.5))


ZOO = [
    eight_schools,
    intervals,
    simplex,
    correlation,
    matrices,
    nested_plates,
    subsampled,
    minibatch,
    masked_and_scaled,
    unplated_batch,
    reparametrised,
    ordered_and_bounded,
    correlation_matrix,
]


# Multinomial.log_prob indexes by a mask, OrderedLogistic writes into a tensor.
NOT_FOR_VMAP = [simplex, ordered_and_bounded]


def free_coordinates(name: str, value: torch.Tensor) -> torch.Tensor:
    """Coordinates of one event that the others follow from: as many as unconstrained ones."""
    if name in ("w", "v"):
        return value[..., :-1]
    if name == "chol" or (name == "r" and value.shape[-2:] == (3, 3)):
        i, j = torch.tril_indices(3, 3, -1)
        return value[..., i, j]
    if name in ("s", "free"):
        i, j = torch.tril_indices(2, 2)
        return value[..., i, j]
    return value


def log_det_of_constrain(target: PyroTarget, z: torch.Tensor) -> torch.Tensor:
    def free(z: torch.Tensor) -> torch.Tensor:
        sites = target.constrain(z[None])
        return torch.cat([free_coordinates(n, sites[n][0]).reshape(-1) for n in target.sites])

    jacobian = torch.autograd.functional.jacobian(free, z)
    assert jacobian.shape == (target.dim, target.dim)
    return torch.linalg.slogdet(jacobian).logabsdet


def hessian_of(target: PyroTarget, z: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.hessian(lambda point: target.log_prob(point[None])[0], z)


def points(target: PyroTarget, n: int, dtype=torch.float64, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.8 * torch.randn(n, target.dim, dtype=torch.float64, generator=generator).to(dtype)


@pytest.mark.parametrize("model", ZOO, ids=lambda m: m.__name__)
@pytest.mark.process_wide
@pytest.mark.usefixtures("double")
def test_density_is_pyros_plus_jacobians(model):
    target = PyroTarget(model)
    z = points(target, 4)
    ours = target.log_prob(z)
    assert target.batching == ("broadcast" if model in NOT_FOR_VMAP else "vmap")
    for i in range(4):
        sites = {name: value[i] for name, value in target.constrain(z).items()}
        latent = {name: sites[name] for name in target.sites}
        trace = poutine.trace(poutine.condition(model, latent)).get_trace()
        theirs = trace.log_prob_sum() + log_det_of_constrain(target, z[i])
        torch.testing.assert_close(ours[i], theirs, rtol=1e-8, atol=1e-8)
        for name, value in sites.items():
            torch.testing.assert_close(value, trace.nodes[name]["value"], rtol=1e-8, atol=1e-8)


@pytest.mark.process_wide
@pytest.mark.usefixtures("double")
def test_angle_has_a_finite_integral():
    """On the line, where torch puts it, the density of an angle is periodic."""
    target = PyroTarget(lambda: pyro.sample("angle", dist.VonMises(0.3, 2.0)))
    z = torch.linspace(-30.0, 30.0, 60001)[:, None]
    assert target.constrain(z)["angle"].abs().max() <= math.pi
    integral = torch.trapezoid(target.log_prob(z).exp(), z[:, 0])
    assert abs(integral - 1) < 1e-6


@pytest.mark.process_wide
@pytest.mark.parametrize("model", [eight_schools, simplex, correlation], ids=lambda m: m.__name__)
def test_float32_agrees_with_float64(model):
    """A z narrower than the model's float64 data is evaluated in float64 and comes back float32."""
    if model is not eight_schools:  # these have matrix products, so all of the model is float64
        torch.set_default_dtype(F64)
    target = PyroTarget(model)
    z = points(target, 3)
    wide, narrow = target.log_prob(z), target.log_prob(z.float())
    torch.set_default_dtype(torch.float32)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-4)
    assert all(value.dtype == torch.float32 for value in target.constrain(z.float()).values())


@pytest.mark.process_wide
@pytest.mark.usefixtures("double")
def test_gradient_is_that_of_single_runs():
    target = PyroTarget(eight_schools)
    z = points(target, 4).requires_grad_()
    (ours,) = torch.autograd.grad(target.log_prob(z).sum(), z)
    for i in range(4):
        row = z[i].detach().requires_grad_()
        sites = target.constrain(row[None])
        latent = {name: sites[name][0] for name in target.sites}
        trace = poutine.trace(poutine.condition(eight_schools, latent)).get_trace()
        theirs = trace.log_prob_sum() + row[1]  # log|d tau / d z| of exp
        torch.testing.assert_close(ours[i], torch.autograd.grad(theirs, row)[0])


def test_sites_tell_shapes_and_places():
    target = PyroTarget(correlation)
    scale, chol = target.sites["scale"], target.sites["chol"]
    assert target.dim == 6
    assert (scale.shape, scale.unconstrained_shape, scale.start, scale.stop) == ((3,), (3,), 0, 3)
    assert (chol.shape, chol.unconstrained_shape, chol.start, chol.stop) == ((3, 3), (3,), 3, 6)
    assert target.named
    assert target.name == "correlation"
    assert PyroTarget(correlation, name="my model").name == "my model"


@pytest.mark.process_wide
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("model", ZOO, ids=lambda m: m.__name__)
def test_unconstrain_inverts_constrain(model):
    target = PyroTarget(model)
    z = points(target, 3)
    sites = target.constrain(z)
    torch.testing.assert_close(target.unconstrain(sites), z, rtol=1e-7, atol=1e-7)
    one = {name: value[0] for name, value in sites.items()}
    torch.testing.assert_close(target.unconstrain(one), z[0], rtol=1e-7, atol=1e-7)


def test_unconstrain_says_what_is_wrong():
    target = PyroTarget(eight_schools)
    good = target.constrain(torch.zeros(2, 10))
    with pytest.raises(TargetError, match="no value for the sites tau"):
        target.unconstrain({"mu": good["mu"], "eta": good["eta"]})
    with pytest.raises(TargetError, match="no site sigma"):
        target.unconstrain(good | {"sigma": good["mu"]})
    with pytest.raises(TargetError, match=r"site 'eta' takes .* \(n, 8\); got \(2, 7\)"):
        target.unconstrain(good | {"eta": good["eta"][:, :7]})
    with pytest.raises(
        TargetError, match=r"site 'tau': a value is outside its .*; got values from"
    ):
        target.unconstrain(good | {"tau": -good["tau"]})


@pytest.mark.process_wide
@pytest.mark.usefixtures("double")
def test_enumerated_mixture_is_summed_out():
    """Against the sum by hand, with a subsampling plate's scale outside of the sum's log."""

    @config_enumerate
    def mixture():
        w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("parts", 3):
            loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
        pyro.deterministic("first", loc[0])
        with pyro.plate("data", 24, subsample=torch.arange(12)):
            k = pyro.sample("k", dist.Categorical(w))
            pyro.deterministic("of_each", loc[k])
            pyro.sample("y", dist.Normal(loc[k], 0.7), obs=DATA)

    target = PyroTarget(mixture)
    z = points(target, 4)
    sites = target.constrain(z)
    assert list(sites) == ["w", "loc", "first"]  # "of_each" has a value for each choice of k
    w, loc = sites["w"], sites["loc"]
    each = w.log()[:, None] + dist.Normal(loc[:, None], 0.7).log_prob(DATA[:, None])
    by_hand = 2.0 * each.logsumexp(-1).sum(-1)
    by_hand += dist.Dirichlet(torch.ones(3)).log_prob(w) + dist.Normal(0.0, 3.0).log_prob(loc).sum(
        -1
    )
    simplex_map = torch.distributions.biject_to(constraints.simplex)
    by_hand += simplex_map.log_abs_det_jacobian(z[:, :2], w)
    torch.testing.assert_close(target.log_prob(z), by_hand)
    assert target.batching == "vmap"


@pytest.mark.process_wide
@pytest.mark.usefixtures("double")
def test_enumerated_chain_is_summed_out():
    """A hidden Markov model, one state masked out, against the forward algorithm."""

    @config_enumerate
    def chain():
        p = pyro.sample("p", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        k = 0
        for t in pyro.markov(range(12)):
            k = pyro.sample(f"k_{t}", dist.Categorical(p[k]))
            with poutine.mask(mask=torch.tensor(t != 5)):
                pyro.sample(f"y_{t}", dist.Normal(loc[k], 1.0), obs=DATA[t])

    target = PyroTarget(chain)
    z = points(target, 3)
    sites = target.constrain(z)
    for i, log_prob in enumerate(target.log_prob(z)):
        p, loc = sites["p"][i], sites["loc"][i]
        ahead = p[0].log()
        for t in range(12):
            if t > 0:
                ahead = (ahead[:, None] + p.log()).logsumexp(0)
            if t != 5:
                ahead = ahead + dist.Normal(loc, 1.0).log_prob(DATA[t])
        by_hand = ahead.logsumexp(0) + dist.Normal(0.0, 2.0).log_prob(loc).sum()
        by_hand += (p[:, 0] * p[:, 1]).log().sum()  # the Jacobian: p is the sigmoid of z
        torch.testing.assert_close(log_prob, by_hand)


def test_enumeration_does_not_underflow():
    """Two choices that explain the data 100 sds apart: exp of either vanishes in float32."""

    def far_apart():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("a", dist.Normal(x + 30.0 * k, 1.0), obs=torch.tensor(0.0))
        pyro.sample("b", dist.Normal(x - 30.0 + 30.0 * k, 1.0), obs=torch.tensor(0.0))

    log_prob = PyroTarget(far_apart).log_prob(torch.zeros(1, 1))
    expected = -450.0 - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(log_prob, torch.tensor([expected]))


def test_impossible_transitions_leave_the_gradient_finite():
    """A chain that can only go on: from the last state back to the first there is no way."""
    steps = torch.tensor([[0.7, 0.3], [0.0, 1.0]])

    @config_enumerate
    def chain():
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        k = 1
        for t in pyro.markov(range(4)):
            k = pyro.sample(f"k_{t}", dist.Categorical(logits=steps[k].log()))
            pyro.sample(f"y_{t}", dist.Normal(loc[k], 1.0), obs=torch.tensor(float(t)))

    z = torch.tensor([[0.5, -1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(PyroTarget(chain).log_prob(z).sum(), z)
    # The first state is never reached; the second explains 0, 1, 2 and 3.
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 1.0 + 6.0 + 4.0]]))


def bernoulli_latent():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("k", dist.Bernoulli(logits=x))


def straight_through():
    with pyro.plate("rows", 2):
        logits = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("k", dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=logits))


@config_enumerate
def straight_through_event():
    probs = torch.full((2, 3), 1 / 3)
    k = dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.5), probs)
    pyro.sample("k", k.to_event(1))


@config_enumerate
def poisson_latent():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("k", dist.Poisson(x.exp()))


@config_enumerate(num_samples=3)
def sampled_enumeration():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("k", dist.Bernoulli(logits=x))


@config_enumerate
def scaled_apart():
    k = pyro.sample("k", dist.Bernoulli(0.5))
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 24, subsample=torch.arange(12)):
        pyro.sample("y", dist.Normal(x + k, 1.0), obs=DATA)


def no_latent():
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))


def moving_support():
    x = pyro.sample("x", dist.LogNormal(0.0, 1.0))
    pyro.sample("u", dist.Uniform(0.0, x))


def moving_sites():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    if x == 0:
        pyro.sample("y", dist.Normal(0.0, 1.0))


def on_a_sphere():
    pyro.sample("s", dist.ProjectedNormal(torch.tensor([1.0, 0.0, 0.0])))


def random_density():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("f", x * torch.rand(()))


def hidden_site():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    with poutine.block():
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
    pyro.sample("z", dist.Normal(x + y, 1.0), obs=torch.tensor(0.0))


def impossible_data():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Uniform(x.detach() + 10.0, x + 20.0, validate_args=False), obs=x)


def not_a_number():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("root", x.sqrt())


def never_valid():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Gamma(-x.square(), 1.0), obs=torch.tensor(1.0))


def raises():
    pyro.sample("x", dist.Normal(0.0, 1.0))
    raise KeyError("the reason")


def needs_argument(y):
    pyro.sample("x", dist.Normal(y, 1.0))


def mixed_dtypes():
    b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.factor("f", -(torch.eye(3) @ b).square().sum(-1))


REFUSED = {
    bernoulli_latent: r"'k' \(Bernoulli\) is discrete and latent: mark it with @config_enumerate",
    straight_through: r"\(RelaxedBernoulliStraightThrough\).*from Bernoulli, .*@config_enumerate.*"
    "or from RelaxedBernoulli, whose",
    straight_through_event: r"CategoricalStraightThrough\).*from OneHotCategorical, .*enumerate",
    poisson_latent: r"'k' \(Poisson\).*not finitely many",
    sampled_enumeration: "'k' is marked for enumeration with num_samples=, which is random",
    scaled_apart: "must be scaled alike.*'k': 1, 'y': 2",
    no_latent: "no continuous latent site.*a log-density needs dim=",
    moving_support: "the support of site 'u' depends on other latent sites",
    moving_sites: "x, y in one run, x in another",
    on_a_sphere: "site 's': no smooth bijection",
    random_density: "another log-density at each call",
    hidden_site: "another log-density at each call",
    impossible_data: r"-inf at every point.*site 'y' \(-inf\)",
    not_a_number: r"is nan at z = .*site 'root' \(nan\)",
    never_valid: "raised ValueError: .*concentration",
    raises: r"raised KeyError: 'the reason' \(test_target.py, line \d+\).*draws of its priors",
    needs_argument: "raised TypeError: .*'y'.*a log-density needs dim=",
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda m: getattr(m, "__name__", "enumerated"))
def test_refused_with_advice(model):
    with pytest.raises(TargetError, match=f"(?s){REFUSED[model]}"):
        PyroTarget(model).check()


def test_exception_of_the_model_is_the_cause():
    with pytest.raises(TargetError) as caught:
        PyroTarget(raises)
    assert isinstance(caught.value.__cause__, KeyError)


def test_wider_z_than_the_model_can_take_is_refused():
    target = PyroTarget(mixed_dtypes)
    assert target.log_prob(torch.zeros(2, 3)).dtype == torch.float32
    with pytest.raises(
        TargetError,
        match=r"float64.*nfvi chose these values, .* = .*draws its sites in .*; pass dtype",
    ):
        target.log_prob(torch.zeros(2, 3, dtype=F64))


def test_wrong_shape_of_z_is_refused():
    with pytest.raises(TargetError, match=r"takes z of shape \(n, 10\); got \(10,\)"):
        PyroTarget(eight_schools).log_prob(torch.zeros(10))


def test_numbers_on_which_nothing_depends_are_warned_of_once():
    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), (2,)))

    target = PyroTarget(model)
    with pytest.warns(UserWarning, match=r"'model' is improper: .* site 'flat' \(0, 1 of 2\)"):
        target.check()
    target.check(torch.float64)


def test_random_subsamples_of_several_plates_are_kept_and_told():
    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 12, subsample_size=3) as i:
            pyro.sample("y", dist.Normal(mu, 1.0), obs=DATA[i])
        with pyro.plate("more", 12, subsample_size=3) as i:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=DATA[i])

    with pytest.warns(UserWarning, match="plate 'data' draws its own subsample|'more'") as caught:
        target = PyroTarget(model)
    assert caught[0].filename == __file__ and target.rows == 0
    mu = torch.tensor([[0.3]], dtype=F64)
    kept = target.subsamples["data"]
    assert len(kept.unique()) == 3
    likelihood = dist.Normal(mu, 1.0).log_prob(DATA[kept]).sum()
    likelihood += dist.Normal(0.0, 1.0).log_prob(DATA[target.subsamples["more"]]).sum()
    expected = dist.Normal(0.0, 1.0).log_prob(mu)[0, 0] + 12 / 3 * likelihood
    torch.testing.assert_close(target.log_prob(mu)[0], expected)


def by_row(scale=None):
    """One latent value a row, t ~ N(0, 1) and y ~ N(t, 1): its posterior has variance 1/2."""
    with pyro.plate("data", 50, subsample=torch.tensor([3, 8])):
        with poutine.scale(scale=1.0 if scale is None else scale):
            t = pyro.sample("t", dist.Normal(torch.zeros(2), 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=torch.tensor([1.0, 2.0]))


def test_the_prior_of_a_latent_site_in_a_plate_that_is_given_rows_is_not_scaled():
    with pytest.warns(UserWarning, match="given 2 of 50 rows and holds latent sites.*power 50/2"):
        target = PyroTarget(by_row)
    z = torch.tensor([[0.2, -0.4]])
    expected = dist.Normal(0.0, 1.0).log_prob(z).sum(1)
    expected += dist.Normal(z, 1.0).log_prob(torch.tensor([1.0, 2.0])).sum(1)
    torch.testing.assert_close(target.log_prob(z), expected)
    hessian = hessian_of(target, z[0])
    torch.testing.assert_close((-hessian).inverse().diagonal().sqrt(), torch.full((2,), 0.5**0.5))


def test_a_scale_by_hand_on_a_latent_site_stays():
    with pytest.warns(UserWarning, match="holds latent sites"):
        target = PyroTarget(by_row, scale=0.25)
    z = torch.tensor([[0.2, -0.4]])
    expected = 0.25 * dist.Normal(0.0, 1.0).log_prob(z).sum(1)
    expected += dist.Normal(z, 1.0).log_prob(torch.tensor([1.0, 2.0])).sum(1)
    torch.testing.assert_close(target.log_prob(z), expected)


def test_plates_without_latent_sites_scale_inside_those_with_them():
    """The outer plate holds a latent site a row; the inner one only data, 3 of 12 of them."""

    def model():
        with pyro.plate("rows", 7, subsample=torch.arange(3), dim=-2):
            t = pyro.sample("t", dist.Normal(0.0, 1.0))
            with pyro.plate("data", 12, subsample=torch.arange(3), dim=-1):
                pyro.sample("y", dist.Normal(t, 1.0), obs=torch.zeros(3, 3))

    with pytest.warns(UserWarning, match="plate 'rows' is given 3 of 7"):
        target = PyroTarget(model)
    z = torch.tensor([[0.2, -0.4, 1.0]])
    expected = dist.Normal(0.0, 1.0).log_prob(z).sum(1)
    expected += 4 * 3 * dist.Normal(z, 1.0).log_prob(torch.tensor(0.0)).sum(1)
    torch.testing.assert_close(target.log_prob(z), expected)
    assert list(unnormalised_terms(target)) == ["y"]


def missing(y, seen):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)


@pytest.mark.usefixtures("double")
def test_imputed_values_have_their_prior_where_there_are_data():
    """mu | 1, 2 is N(1.4925, 0.7053²), and the masked values are N(mu, 1) whether used or not."""
    target = PyroTarget(missing, torch.tensor([1.0, 2.0, 0.0]), torch.tensor([True, True, False]))
    z = points(target, 3)
    mu, imputed = z[:, :1], z[:, 1:]
    expected = dist.Normal(0.0, 10.0).log_prob(mu[:, 0])
    expected = expected + dist.Normal(mu, 1.0).log_prob(torch.tensor([1.0, 2.0])).sum(1)
    expected = expected + dist.Normal(mu, 1.0).log_prob(imputed).sum(1)
    torch.testing.assert_close(target.log_prob(z), expected)
    # The density is Gaussian: its covariance is the inverse of the negative Hessian.
    hessian = hessian_of(target, torch.zeros(4))
    start = torch.zeros(1, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(target.log_prob(start).sum(), start)
    covariance = (-hessian).inverse()
    assert covariance[0, 0].sqrt().item() == pytest.approx(0.7053, abs=1e-4)
    assert (covariance @ slope[0])[0].item() == pytest.approx(1.4925, abs=1e-4)
    assert not unnormalised_terms(target)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("mask", [False, torch.tensor([True, False])], ids=["whole", "in part"])
@pytest.mark.parametrize("event", [0, 1])
def test_a_latent_site_keeps_its_prior_where_a_handler_masks_it(mask, event):
    def model():
        with poutine.mask(mask=mask if event == 0 else False):
            pyro.sample("x", dist.Gamma(torch.ones(2), 3.0).to_event(event))

    target = PyroTarget(model)
    z = points(target, 3)
    expected = dist.Gamma(1.0, 3.0).log_prob(z.exp()).sum(1) + z.sum(1)
    torch.testing.assert_close(target.log_prob(z), expected)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("event", [0, 1])
def test_a_distribution_that_is_masked_itself_is_a_flat_prior(event):
    """exp(z) > 0 under a flat prior and y ~ Exponential(x): the likelihood and the Jacobian."""
    y = torch.tensor([0.5, 2.0])

    def model():
        x = pyro.sample("x", dist.Gamma(torch.ones(2), 3.0).mask(False).to_event(event))
        pyro.sample("y", dist.Exponential(x).to_event(event), obs=y)

    target = PyroTarget(model)
    z = points(target, 3)
    expected = dist.Exponential(z.exp()).log_prob(y).sum(1) + z.sum(1)
    torch.testing.assert_close(target.log_prob(z), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flat_prior_does_not_rise_beyond_the_floats(dtype):
    """Where exp(z) is no float any more, z itself would go on to rise as its Jacobian."""

    def model():
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0).mask(False))
        pyro.sample("y", dist.Normal(0.0, sigma).expand([3]).to_event(1), obs=torch.ones(3))

    z = torch.tensor([[0.0], [1e4], [-1e4], [1e8]], dtype=dtype)
    log_p = PyroTarget(model).log_prob(z)
    assert log_p[0].isfinite() and bool((log_p[1:] == -math.inf).all())


def test_minibatch_plate_is_scaled_without_a_word():
    """Every plate that only scales the data it is given is the same at each call: no warning."""
    assert list(PyroTarget(minibatch).subsamples) == ["data"]


@pytest.mark.pyro_params
def test_parameters_are_constants_and_the_store_is_left_alone():
    def model():
        a = pyro.param("a", torch.tensor(2.0), constraint=constraints.positive)
        with pyro.plate("rows", 6, subsample=torch.arange(3)):
            b = pyro.param("b", lambda: torch.arange(6.0), event_dim=0)
            pyro.sample("x", dist.Normal(b, a))

    told = pytest.warns(UserWarning, match="plate 'rows' is given 3 of 6 rows and holds")
    with told, pytest.warns(UserWarning, match=r"pyro.param: a, b.*not learned"):
        fresh = PyroTarget(model)
    assert not list(pyro.get_param_store().keys())
    stored = pyro.param("a", torch.tensor(3.0), constraint=constraints.positive)
    unconstrained = pyro.get_param_store()._params["a"]
    with told, pytest.warns(UserWarning, match="not learned"):
        later = PyroTarget(model)
    z = torch.tensor([[0.5, 1.0, -1.0]])
    for target, a in ((fresh, 2.0), (later, stored.item())):
        expected = dist.Normal(torch.arange(3.0), a).log_prob(z).sum(1)
        torch.testing.assert_close(target.log_prob(z), expected)
    assert list(pyro.get_param_store().keys()) == ["a"]
    assert pyro.get_param_store()._params["a"] is unconstrained


def test_module_with_random_weights():
    class Line(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.slope = pyro.nn.PyroSample(dist.Normal(0.0, 1.0))
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            loc = self.slope * x
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(loc, self.scale), obs=2 * x)

    x = torch.linspace(-1, 1, 5)
    with pytest.warns(UserWarning, match="scale"):
        target = PyroTarget(Line(), x)
    slope = torch.tensor([[0.0], [1.0]])
    expected = dist.Normal(0.0, 1.0).log_prob(slope[:, 0])
    expected = expected + dist.Normal(slope * x, 2.0).log_prob(2 * x).sum(1)
    torch.testing.assert_close(target.log_prob(slope), expected)
    assert not list(pyro.get_param_store().keys())


def test_random_state_and_switches_stay_as_they_are():
    def draws_needlessly():
        torch.rand(3)
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.deterministic("x2", 2 * x)

    for model in (eight_schools, draws_needlessly):
        before = torch.get_rng_state()
        target = PyroTarget(model)
        z = torch.zeros(2, target.dim)
        values = [target.log_prob(z) for _ in range(2)]
        target.constrain(z)
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(*values)


def test_handlers_around_a_call_do_not_see_the_model():
    target = PyroTarget(eight_schools)
    trace = poutine.trace(lambda: target.log_prob(torch.zeros(2, 10))).get_trace()
    assert "mu" not in trace.nodes


def test_same_target_whatever_the_seed():
    targets = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            targets.append(PyroTarget(eight_schools))
    z = torch.ones(2, 10)
    assert torch.equal(targets[0].log_prob(z), targets[1].log_prob(z))


def leans_on_other_draws():
    """Broadcasting goes through here, and is wrong: the mean is taken over the draws, too."""
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0))
    y = torch.zeros(2)
    y.add_(0.5)  # in place on a constant: vmap does not mind
    if float(x.sum().detach()) > 1e9:  # vmap minds this
        y = y + 1
    pyro.factor("f", -(x - x.mean()).square().sum())


def branches():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("f", -x if float(x.detach()) > 0 else x * 2)


@pytest.mark.parametrize("model", [leans_on_other_draws, branches], ids=lambda m: m.__name__)
def test_loop_is_right_and_warns_once(model):
    target = PyroTarget(model)
    z = points(target, 5, torch.float32)
    with pytest.warns(UserWarning, match="one point at a time") as caught:
        whole = target.log_prob(z)
    assert len(caught) == 1
    assert target.batching == "loop"
    rows = torch.cat([target.log_prob(row[None]) for row in z])
    torch.testing.assert_close(whole, rows)
    target.log_prob(z.double())  # checked anew, without a second warning


def overflows():
    x = pyro.sample("x", dist.Normal(torch.zeros(40), 1.0).to_event(1))
    with pyro.plate("data", 2):
        pyro.sample("y", dist.Weibull((-19.0 - 0.1 * x[0]).exp(), 4.2), obs=torch.ones(2))


def root_of_zero():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("root", -torch.where(x > 0, x.sqrt(), 0.0))


def test_a_gradient_that_overflows_names_its_site_and_advises_float64():
    with pytest.raises(
        TargetError, match=r"site 'y' whose gradient.*pass dtype=torch.float64"
    ) as e:
        PyroTarget(overflows).check(torch.float32)
    assert "look for" not in str(e.value)
    PyroTarget(overflows).check(F64)


def test_a_gradient_that_is_not_finite_in_any_dtype_names_its_site():
    with pytest.raises(TargetError, match=r"look for sqrt.*site 'root' whose gradient") as caught:
        PyroTarget(root_of_zero).check(torch.float32)
    assert "float64" not in str(caught.value)


def narrow_rate(y):
    """Invalid for sd over 0.458, which z = 0 gives: its prior has no mass to speak of there."""
    sd = pyro.sample("sd", dist.HalfNormal(0.05))
    pyro.sample("y", dist.Gamma(0.21 / sd**2 - 1, 1.0), obs=y)


def tight_share(y):
    u = pyro.sample("u", dist.Beta(2.0, 8.0))
    with pyro.plate("data", 2):
        pyro.sample("y", dist.Beta(0.4 - u, 1.0).to_event(0), obs=y.expand(2))


def on_a_line(log_p: torch.Tensor, x: torch.Tensor) -> float:
    return torch.trapezoid(log_p.exp(), x).item()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("model", "prior", "likelihood", "last"),
    [
        (
            narrow_rate,
            dist.HalfNormal(0.05),
            lambda sd: dist.Gamma(0.21 / sd**2 - 1, 1.0).log_prob(torch.tensor(0.5)),
            0.21**0.5,
        ),
        (
            tight_share,
            dist.Beta(2.0, 8.0),
            lambda u: 2 * dist.Beta(0.4 - u, 1.0).log_prob(torch.tensor(0.5)),
            0.4,
        ),
    ],
    ids=["rate", "share"],
)
def test_a_model_that_does_not_take_the_image_of_zero(model, prior, likelihood, last):
    """Its integral is that over the values that it takes, and it is 0 elsewhere."""
    target = PyroTarget(model, torch.tensor(0.5))
    name = next(iter(target.sites))
    z = torch.linspace(-12.0, 20.0, 20001)[:, None]
    log_p, x = target.log_prob(z), target.constrain(z)[name]
    assert (log_p[x > last] == -torch.inf).all()
    assert log_p[x < last].isfinite().all()
    assert prior.log_prob(target.constrain(torch.zeros(1, 1))[name]).item() > 0
    torch.testing.assert_close(target.unconstrain({name: x[:9000]}), z[:9000], atol=1e-6, rtol=0)
    grid = torch.linspace(0.0, last, 200001)[1:-1]
    exact = on_a_line(prior.log_prob(grid) + likelihood(grid), grid)
    assert on_a_line(log_p, z[:, 0]) == pytest.approx(exact, rel=1e-3)


def counted():
    w = pyro.sample("w", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    pyro.sample("n", dist.Multinomial(9, w), obs=torch.tensor([4.0, 3.0, 2.0]))


def branching_without_a_plate():
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    if float(x.detach().sum()) > 1e9:
        x = x + 1
    pyro.sample("y", dist.Normal(x[..., 0], x[..., 1].exp()), obs=torch.tensor(1.0))


@pytest.mark.parametrize("model", [counted, branching_without_a_plate], ids=lambda m: m.__name__)
@pytest.mark.usefixtures("double")
def test_broadcasting_without_a_plate(model):
    target = PyroTarget(model)
    z = points(target, 5)
    log_prob = target.log_prob(z)
    assert target.batching == "broadcast"
    for row, got in zip(z, log_prob, strict=True):
        latent = {name: value[0] for name, value in target.constrain(row[None]).items()}
        trace = poutine.trace(poutine.condition(model, latent)).get_trace()
        expected = trace.log_prob_sum() + log_det_of_constrain(target, row)
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_broadcasting_is_taken_where_vmap_cannot_go():
    def model():
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 12):
            loc = x[..., :1]
            if float(loc.detach().sum()) > 1e9:
                loc = loc + 1
            pyro.sample("y", dist.Normal(loc, x[..., 1:].exp()), obs=DATA)

    target = PyroTarget(model)
    z = points(target, 12)  # as many as data
    log_prob = target.log_prob(z)
    assert target.batching == "broadcast"
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(1)
    likelihood = dist.Normal(z[:, :1], z[:, 1:].exp()).log_prob(DATA).sum(1)
    torch.testing.assert_close(log_prob, prior + likelihood, rtol=1e-6, atol=1e-6)


def test_keyword_arguments_go_to_the_model():
    def model(y, *, scale):
        pyro.sample("y", dist.Normal(pyro.sample("mu", dist.Normal(0.0, 1.0)), scale), obs=y)

    wide = PyroTarget(model, torch.tensor(1.0), scale=10.0).log_prob(torch.zeros(1, 1))
    narrow = PyroTarget(model, torch.tensor(1.0), scale=1.0).log_prob(torch.zeros(1, 1))
    expected = dist.Normal(0.0, 10.0).log_prob(torch.tensor(1.0))
    expected -= dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(wide - narrow, expected[None])


def test_as_target():
    target = as_target(needs_argument, torch.tensor(0.0))
    assert isinstance(target, PyroTarget)
    assert as_target(target) is target
    with pytest.raises(TargetError, match="target already"):
        as_target(target, torch.tensor(0.0))
    with pytest.raises(TargetError, match="dim=3 was given, but 'needs_argument' has dim=1"):
        as_target(target, dim=3)
    with pytest.raises(TargetError, match="takes an argument, so it looks like a log-density"):
        as_target(lambda z: -z.square().sum(-1))
    with pytest.raises(TargetError, match="leave out dim="):
        as_target(needs_argument, torch.tensor(0.0), dim=1)
    with pytest.raises(TargetError, match="got int"):
        as_target(3)


@pytest.mark.cuda
def test_model_on_a_gpu():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(y.new_tensor(5.0)))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, 10.0), obs=y)

    here, there = PyroTarget(model, Y), PyroTarget(model, Y.cuda())
    z = points(here, 5)
    before = torch.cuda.get_rng_state()
    on_gpu = there.log_prob(z.cuda())
    assert on_gpu.is_cuda
    assert there.constrain(z.cuda())["tau"].is_cuda
    assert torch.equal(before, torch.cuda.get_rng_state())
    torch.testing.assert_close(on_gpu.cpu(), here.log_prob(z))
    with pytest.raises(TargetError, match="cuda"):
        there.log_prob(z)
