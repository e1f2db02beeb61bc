"""NumPyro models: NumPyro's own density, gradient and sites, in torch's hands."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from nfvi import NFVI, NumPyroTarget, TargetError
from nfvi.training import step

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")
import numpyro.distributions as dist  # noqa: E402
from numpyro.contrib.control_flow import scan  # noqa: E402
from numpyro.contrib.funsor import config_enumerate, enum  # noqa: E402
from numpyro.infer.util import constrain_fn, potential_energy  # noqa: E402

jnp = jax.numpy
rng = np.random.default_rng(0)
SCHOOLS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
X = rng.normal(size=(12, 3))
COUNTS = rng.integers(0, 4, size=12)
REAL = rng.normal(size=12)


@pytest.fixture(autouse=True)
def jax_is_left_alone():
    """Off here, as PyTensor turns 64 bits on for a whole process, in which PyMC's tests may run."""
    before = jax.config.jax_enable_x64
    with jax.enable_x64(False):
        yield
    assert jax.config.jax_enable_x64 == before


def hierarchical(y, sigma):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def logistic(x, y=None):
    beta = numpyro.sample("beta", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def gaussian_process(x, y):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.InverseGamma(3.0, 2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    gap = (x[:, None] - x) / length
    cov = scale**2 * jnp.exp(-0.5 * gap**2) + (noise**2 + 1e-6) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(0.0, covariance_matrix=cov), obs=y)


def ordinal(x, y):
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([3]))
    cuts = numpyro.sample(
        "cuts",
        dist.TransformedDistribution(
            dist.Normal(0.0, 2.0).expand([3]).to_event(1),
            dist.transforms.OrderedTransform(),
        ),
    )
    numpyro.sample("y", dist.OrderedLogistic(x @ beta, cuts), obs=y)


def mixture(y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([2.0, 3.0])))
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    parts = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(mu, 1.0))
    numpyro.sample("y", parts, obs=y)


def censored(y, limit):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 2.0))
    with numpyro.plate("row", len(y)):
        with numpyro.handlers.mask(mask=y < limit):
            numpyro.sample("seen", dist.Exponential(rate), obs=y)
        numpyro.factor("beyond", jnp.where(y < limit, 0.0, -rate * limit))


def correlated(y):
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([3]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJCholesky(3, 2.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.MultivariateNormal(0.0, scale_tril=sd[:, None] * corr), obs=y)


def within(y):
    """Bounds that are sites themselves, a circular site, a simplex for each group."""
    low = numpyro.sample("low", dist.Uniform(-1.0, 1.0))
    high = numpyro.sample("high", dist.Uniform(low, low + 3.0))
    angle = numpyro.sample("angle", dist.VonMises(0.0, 1.0))
    with numpyro.plate("group", 2):
        shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    middle = 0.5 * (low + high) + jnp.sin(angle) + shares[:, 0].sum()
    numpyro.sample("y", dist.Normal(middle, 1.0), obs=y)


def time_series(y):
    drift = numpyro.sample("drift", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0))

    def step(level, y_now):
        level = numpyro.sample("level", dist.Normal(level + drift, sigma))
        numpyro.sample("y", dist.StudentT(4.0, level, 0.5), obs=y_now)
        return level, level

    scan(step, jnp.zeros(()), y)


def horseshoe(x, y):
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("column", x.shape[1]):
        lam = numpyro.sample("lam", dist.HalfCauchy(1.0))
        beta = numpyro.sample("beta", dist.Normal(0.0, tau * lam))
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def enumerated(y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([2.0, 3.0])))
    with numpyro.plate("component", 2):
        mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    with numpyro.plate("row", len(y)):
        k = numpyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.deterministic("own", mu[k])
        numpyro.sample("y", dist.Normal(mu[k], 1.0), obs=y)
    numpyro.deterministic("gap", mu[1] - mu[0])


MODELS = {
    "hierarchical": (hierarchical, (SCHOOLS, ERRORS)),
    "logistic": (logistic, (X, COUNTS % 2)),
    "gaussian process": (gaussian_process, (X[:, 0], REAL)),
    "ordinal": (ordinal, (X, COUNTS)),
    "mixture": (mixture, (REAL,)),
    "censored": (censored, (np.minimum(np.abs(REAL), 1.0), 1.0)),
    "correlated": (correlated, (X,)),
    "within": (within, (REAL,)),
    "time series": (time_series, (REAL,)),
    "horseshoe": (horseshoe, (X, REAL)),
    "enumerated": (enumerated, (REAL,)),
}


def copies(args):
    return tuple(a.copy() if isinstance(a, np.ndarray) else a for a in args)


@pytest.mark.parametrize("name", MODELS)
def test_density_gradient_and_sites_are_those_of_numpyro(name):
    model, args = MODELS[name]
    target = NumPyroTarget(model, *args)
    z = torch.randn(3, target.dim, dtype=torch.float64, requires_grad=True)
    value = target.log_prob(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    with jax.enable_x64(True):
        seeded, args = numpyro.handlers.seed(model, 0), copies(args)
        if name == "enumerated":
            seeded = enum(config_enumerate(seeded), -2)

        def theirs(point):
            params = target._model.split(point)
            return -potential_energy(seeded, args, {}, params, enum=name == "enumerated")

        def sites(point):
            params = target._model.split(point)
            return constrain_fn(
                numpyro.handlers.seed(model, 0), args, {}, params, return_deterministic=True
            )

        points = jnp.asarray(z.detach().numpy())
        log_p, slopes = jax.jit(jax.vmap(jax.value_and_grad(theirs)))(points)
        values = jax.jit(jax.vmap(sites))(points)
    np.testing.assert_allclose(value.detach().numpy(), log_p, rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(gradient.numpy(), slopes, rtol=1e-8, atol=1e-8)
    for key, x in target.constrain(z).items():
        np.testing.assert_allclose(x.detach().numpy(), values[key], rtol=1e-8, atol=1e-12)


class TestSites:
    def test_order_and_shapes(self):
        target = NumPyroTarget(hierarchical, SCHOOLS, sigma=ERRORS)
        found = target.constrain(torch.zeros(5, target.dim))
        assert {key: tuple(x.shape) for key, x in found.items()} == {
            "mu": (5,),
            "tau": (5,),
            "eta": (5, 8),
            "theta": (5, 8),
        }
        assert target.name == "hierarchical"
        assert target.named
        assert target.deterministic == ("theta",)
        assert all(x.dtype == torch.float32 for x in found.values())

    def test_dims_are_those_of_plates(self):
        def model(y):
            with numpyro.plate("group", 3, dim=-2), numpyro.plate("time", 4, dim=-1):
                a = numpyro.sample("a", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
                numpyro.deterministic("b", a.sum(-1))
            numpyro.sample("c", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
            with numpyro.plate("group_", 3):
                numpyro.sample("y", dist.Normal(a.sum((1, 2)), 1.0), obs=y)

        target = NumPyroTarget(model, np.zeros(3))
        assert target.dims == {
            "a": ("group", "time", "a_dim_2"),
            "b": ("group", "time"),
            "c": ("c_dim_0",),
            "y": ("group_",),
        }
        np.testing.assert_array_equal(target.observed_data["y"], np.zeros(3))

    def test_enumerated_sites_and_what_depends_on_them_are_left_out(self):
        target = NumPyroTarget(enumerated, REAL)
        assert [*target.constrain(torch.zeros(1, target.dim))] == ["weights", "mu", "gap"]

    def test_unconstrain(self):
        target = NumPyroTarget(within, REAL)
        z = torch.randn(5, target.dim, dtype=torch.float64)
        values = target.constrain(z)
        torch.testing.assert_close(target.unconstrain(values), z)
        one = {key: x[0] for key, x in values.items()}
        torch.testing.assert_close(target.unconstrain(one), z[0])
        with pytest.raises(TargetError, match="'low': a value is outside its support"):
            target.unconstrain(one | {"low": torch.tensor(3.0)})
        with pytest.raises(TargetError, match="has no site up; its latent sites are low, high"):
            target.unconstrain(one | {"up": torch.tensor(3.0)})
        with pytest.raises(TargetError, match=r"'angle' takes values of shape \(\)"):
            target.unconstrain(one | {"angle": torch.zeros(2, 2)})
        with pytest.raises(TargetError, match="needs a value for each site"):
            target.unconstrain({"low": torch.tensor(0.0)})

    def test_edges(self):
        def model():
            numpyro.sample("p", dist.Beta(0.5, 0.5))

        z = torch.tensor([[0.0], [5.0], [60.0], [-300.0]])
        assert NumPyroTarget(model).on_edge(z).tolist() == [False, False, True, True]


def test_a_fit_and_what_arviz_gets_of_it(monkeypatch):
    monkeypatch.setattr(step, "LEAST_STEPS", 1)
    target = NumPyroTarget(hierarchical, SCHOOLS, ERRORS)
    fit = NFVI("scale-loc", seed=0).fit(target, steps=20, n_mc=8, restarts=1, progress=False)
    assert fit.settings["evaluation"] == "traced"
    data = fit.to_arviz()
    assert data.posterior["theta"].dims == ("chain", "draw", "school")
    assert data.posterior["tau"].dims == ("chain", "draw")
    assert data.observed_data["y"].dims == ("school",)
    np.testing.assert_array_equal(data.observed_data["y"], SCHOOLS)
    assert list(data.constant_data) == ["sigma"]
    np.testing.assert_array_equal(data.constant_data["sigma"], ERRORS)


class TestPrior:
    def test_its_draws(self):
        """The prior of tau is half-Cauchy: log(tau / 5) has its median at 0 and quartiles ±0.88."""
        target = NumPyroTarget(hierarchical, SCHOOLS, ERRORS)
        z = target.prior_draws(4000, seed=1)
        assert z.shape == (4000, 10)
        tau = (z[:, 1] - np.log(5.0)).quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        torch.testing.assert_close(
            tau, torch.tensor([-0.8814, 0.0, 0.8814]).double(), atol=0.12, rtol=0
        )
        assert torch.equal(z, target.prior_draws(4000, seed=1))
        assert not torch.equal(z, target.prior_draws(4000, seed=2))

    def test_there_is_none_where_it_is_improper(self):
        def model():
            mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.zeros(()))

        target = NumPyroTarget(model)
        assert target.log_prob(torch.zeros(2, 1)).isfinite().all()
        assert target.prior_draws(10, seed=0) is None


class TestCaveats:
    def test_none_where_z_is_the_evidence(self):
        assert NumPyroTarget(hierarchical, SCHOOLS, ERRORS).evidence_caveats == ()

    def test_improper_priors_factors_and_no_data(self):
        def improper():
            numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (2,)).mask(True))
            numpyro.factor("f", 0.0)

        assert NumPyroTarget(improper).evidence_caveats == (
            "site 'x' is an improper prior, so that Z is no evidence",
            "site 'f' is a numpyro.factor term, so that Z is no evidence",
        )

        def prior():
            numpyro.sample("x", dist.Normal(0.0, 1.0))

        (word,) = NumPyroTarget(prior).evidence_caveats
        assert word.startswith("the model has no data")


class TestWarnings:
    def test_a_subsample_is_kept(self):
        def model(y):
            mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
            with numpyro.plate("row", len(y), subsample_size=4) as rows:
                numpyro.sample("y", dist.Normal(mu, 1.0), obs=jnp.asarray(y)[rows])

        with pytest.warns(UserWarning, match="plate 'row' draws its own subsample; .* 4 of 12"):
            target = NumPyroTarget(model, REAL)
        z = torch.randn(3, 1, dtype=torch.float64)
        assert torch.equal(target.log_prob(z), target.log_prob(z))
        (rows,) = target._model.held.values()
        y = torch.from_numpy(REAL[rows])
        normal = torch.distributions.Normal
        (word,) = target.evidence_caveats
        assert word.startswith("site 'y' is a scaled log-density")
        exact = normal(0.0, 1.0).log_prob(z[:, 0]) + 3 * normal(z, 1.0).log_prob(y).sum(1)
        torch.testing.assert_close(target.log_prob(z), exact)

    def test_a_parameter_is_not_learned(self):
        def model():
            scale = numpyro.param("scale", 2.0, constraint=dist.constraints.positive)
            numpyro.sample("x", dist.Normal(0.0, scale))

        with pytest.warns(UserWarning, match=r"numpyro.param: scale\); it keeps its initial value"):
            target = NumPyroTarget(model)
        exact = torch.distributions.Normal(0.0, 2.0).log_prob(torch.ones(1))
        torch.testing.assert_close(target.log_prob(torch.ones(1, 1)), exact)

    def test_parameters_in_a_tree(self):
        """As those of a network."""

        def model():
            weights = numpyro.param("net", lambda key: {"a": jnp.ones(2), "b": jnp.zeros(())})
            numpyro.sample("x", dist.Normal(weights["a"].sum(), 1.0))

        with pytest.warns(UserWarning, match="net"):
            target = NumPyroTarget(model)
        exact = torch.distributions.Normal(2.0, 1.0).log_prob(torch.zeros(1))
        torch.testing.assert_close(target.log_prob(torch.zeros(1, 1)), exact)

    def test_a_flat_site(self):
        def model():
            numpyro.sample("x", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.ImproperUniform(dist.constraints.real, (), (2,)))

        with pytest.warns(UserWarning, match=r"improper: .* site 'y' \(0, 1 of 2\)"):
            NumPyroTarget(model).check()


def discrete_unmarked():
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("x", dist.Normal(k * 1.0, 1.0))


def countable():
    k = numpyro.sample("k", dist.Poisson(2.0))
    numpyro.sample("x", dist.Normal(k * 1.0, 1.0))


def delta():
    numpyro.sample("x", dist.Delta(jnp.zeros(())))


def nothing():
    numpyro.sample("x", dist.Normal(0.0, 1.0), obs=jnp.zeros(()))


def broken():
    raise ValueError("no such luck")


def branching():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    if x > 0:
        numpyro.sample("y", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (discrete_unmarked, "'k' (BernoulliProbs) is discrete and latent: mark it"),
        (countable, "write the marginal density instead"),
        (delta, "numpyro.deterministic in its place"),
        (nothing, "'nothing' has no continuous latent site"),
        (broken, "'broken' raised ValueError: no such luck"),
        (branching, "'branching' raised TracerBoolConversionError"),
        (3, "a NumPyro model is a function; got int"),
    ],
)
def test_what_cannot_be_fitted(model, message):
    with pytest.raises(TargetError) as caught:
        NumPyroTarget(model)
    assert message in str(caught.value)


def test_missing_arguments():
    with pytest.raises(TargetError, match=r"'mixture' raised TypeError: .*NumPyroTarget\(model, X"):
        NumPyroTarget(mixture)


def test_without_numpyro(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(ImportError, match=r"nfvi\[jax\]"):
        NumPyroTarget(hierarchical, SCHOOLS, ERRORS)


def test_tensors_and_handlers():
    conditioned = numpyro.handlers.condition(logistic, {"y": COUNTS % 2})
    target = NumPyroTarget(conditioned, torch.from_numpy(X))
    assert target.name == "logistic"
    z = torch.randn(3, 3, dtype=torch.float64)
    plain = NumPyroTarget(logistic, X, y=COUNTS % 2)
    torch.testing.assert_close(target.log_prob(z), plain.log_prob(z))


def test_a_run_of_numpyro_in_float32_on_the_same_arrays():
    """JAX keeps the form of an array that a compiled function holds."""
    kept = jax.jit(
        lambda z: potential_energy(
            numpyro.handlers.seed(mixture, 0), (REAL,), {}, {"weights": z[:1], "mu": z[1:]}
        )
    )
    before = kept(jnp.zeros(3))
    target = NumPyroTarget(mixture, REAL)
    for dtype in (torch.float64, torch.float32):
        value = target.log_prob(torch.zeros(2, 3, dtype=dtype))
        torch.testing.assert_close(value.float()[0].item(), -float(before), rtol=1e-5, atol=0)
    assert kept(jnp.zeros(3)) == before


def test_numbers_on_which_nothing_depends_are_warned_of_once():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), (2,)))

    target = NumPyroTarget(model)
    with pytest.warns(UserWarning, match=r"'model' is improper: .* site 'flat' \(0, 1 of 2\)"):
        target.check(torch.float64)
    target.check(torch.float32)
