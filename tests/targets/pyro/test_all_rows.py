"""Plates that draw their own rows and hold latent sites, held to the model of all rows."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from torch import Tensor

from nfvi import NFVI, PyroTarget, TargetError
from nfvi.targets import takes_rows, unnormalised_terms
from nfvi.targets.pieced_sum import in_pieces

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.randn(10, generator=GENERATOR, dtype=F64)
TABLE = torch.randn(10, 3, generator=GENERATOR, dtype=F64)
MANY = torch.randn(50, generator=GENERATOR, dtype=F64)
pytestmark = [pytest.mark.usefixtures("double"), pytest.mark.process_wide]


@pytest.fixture
def double():
    """Numbers in a model become float64 tensors, as its data are, so that comparisons are sharp."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


def by_row(y, size=None):
    with pyro.plate("data", len(y), subsample_size=size) as i:
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[i])


def hierarchical(y, size=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    pyro.deterministic("twice", 2 * mu)
    with pyro.plate("data", len(y), subsample_size=size):
        batch = pyro.subsample(y, event_dim=0)
        t = pyro.sample("t", dist.Normal(mu, tau))
        pyro.deterministic("moved", t + tau)
        pyro.sample("y", dist.Normal(t, 1.0), obs=batch)


def nested(table, rows=None, columns=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(table), subsample_size=rows, dim=-2) as i:
        t = pyro.sample("t", dist.Normal(mu, 1.0))
        with pyro.plate("columns", 3, subsample_size=columns, dim=-1) as j:
            u = pyro.sample("u", dist.Gamma(2.0, 3.0))
            pyro.deterministic("tu", t * u)
            pyro.sample("y", dist.Normal(t, u), obs=table[i][:, j])


def of_vectors(table, size=None):
    """Events of all kinds, one of them with a support of its own in each row."""
    with pyro.plate("rows", len(table), subsample_size=size) as i:
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        scale = pyro.sample("L", dist.LKJCholesky(3, 2.0))
        v = pyro.sample("v", dist.Uniform(-1.0, 2.0))
        w = pyro.sample("w", dist.Uniform(-1.0 - table[i].abs()[:, 0], 2.0))
        pyro.deterministic("product", b * v[..., None], event_dim=1)
        loc = b + p + (v + w)[..., None]
        pyro.sample("y", dist.MultivariateNormal(loc, scale_tril=scale), obs=table[i])


@config_enumerate
def mixture(y, size=None):
    q = pyro.sample("q", dist.Beta(2.0, 2.0))
    with pyro.plate("data", len(y), subsample_size=size) as i:
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(q))
        pyro.sample("y", dist.Normal(t + 2 * k, 1.0), obs=y[i])


def side_by_side(y, size=None, other=None):
    """A second plate that holds data alone goes through all of its rows, too."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y), subsample_size=size) as i:
        t = pyro.sample("t", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[i])
    with pyro.plate("other", len(y), subsample_size=other) as i:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=y[i])


def imputed(y, size=None):
    mu, seen = pyro.sample("mu", dist.Normal(0.0, 1.0)), torch.arange(len(y)) % 3 > 0
    with pyro.plate("data", len(y), subsample_size=size) as i:
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[i], obs_mask=seen[i])


def by_hand_scaled(y, size=None):
    with pyro.plate("data", len(y), subsample_size=size) as i:
        t = pyro.sample("t", dist.Gamma(2.0, 1.0))
        with poutine.scale(scale=2.0):
            pyro.sample("y", dist.StudentT(3.0, t, 1.0), obs=y[i])


def without_data(y, size=None):
    with pyro.plate("data", len(y), subsample_size=size):
        pyro.sample("t", dist.Normal(0.0, 2.0))


def only_where_valid(y, size=None):
    """A scale that is negative at z = 0, so that trial points are draws from the prior."""
    sigma = pyro.sample("sigma", dist.Normal(3.0, 0.5))
    with pyro.plate("data", len(y), subsample_size=size) as i:
        t = pyro.sample("t", dist.Normal(5.0, 0.5))
        pyro.sample("y", dist.Normal(t, sigma + t - 4.0), obs=y[i])


CASES = [
    (by_row, Y, (1,)),
    (by_row, Y, (2,)),
    (by_row, Y, (7,)),
    (hierarchical, Y, (2,)),
    (hierarchical, Y, (3,)),
    (nested, TABLE, (2,)),
    (nested, TABLE, (3, 2)),
    (nested, TABLE, (7, 1)),
    (of_vectors, TABLE, (2,)),
    (of_vectors, TABLE, (3,)),
    (mixture, Y, (1,)),
    (mixture, Y, (4,)),
    (side_by_side, Y, (2,)),
    (side_by_side, Y, (3, 4)),
    (side_by_side, Y, (2, 1)),
    (imputed, Y, (3,)),
    (by_hand_scaled, Y, (3,)),
    (without_data, Y, (3,)),
    (only_where_valid, Y, (3,)),
]
each = pytest.mark.parametrize(
    ("model", "data", "sizes"), CASES, ids=[f"{m.__name__}-{s}" for m, _, s in CASES]
)


def value_and_slope(target: PyroTarget, z: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.clone().requires_grad_()
    value = target.log_prob(leaf)
    return value.detach(), torch.autograd.grad(value.square().sum(), leaf)[0]


@each
def test_all_of_it_is_that_of_the_model_without_subsample_size(
    model: Callable[..., None], data: Tensor, sizes: tuple[int, ...]
) -> None:
    """Density, gradient, values, dimensions and data, also after a journey to another process."""
    target, whole = PyroTarget(model, data, *sizes), PyroTarget(model, data)
    assert not takes_rows(target) and target.subsamples == {}
    assert {n: (s.shape, s.start) for n, s in target.sites.items()} == {
        n: (s.shape, s.start) for n, s in whole.sites.items()
    }
    z = torch.randn(4, whole.dim, generator=torch.Generator().manual_seed(1))
    if model is only_where_valid:  # the two have other origins
        z = target.unconstrain(whole.constrain(0.1 * z))
        values, own = whole.constrain(whole.unconstrain(target.constrain(z))), target.constrain(z)
        torch.testing.assert_close(own, values)
        at_values = whole.log_prob(whole.unconstrain(own))
        torch.testing.assert_close(target.log_prob(z), at_values)
        return
    found, expected = value_and_slope(target, z), value_and_slope(whole, z)
    torch.testing.assert_close(found, expected)
    assert list(target.constrain(z)) == list(whole.constrain(z))
    torch.testing.assert_close(target.constrain(z), whole.constrain(z))
    torch.testing.assert_close(target.unconstrain(target.constrain(z)), z)
    assert target.dims == whole.dims
    assert target.program.all_rows is not None and target.program.all_rows.mapped
    assert {n: x.shape for n, x in target.observed_data.items()} == {
        n: x.shape for n, x in whole.observed_data.items()
    }
    assert unnormalised_terms(target, of_all_rows=True) == unnormalised_terms(whole)
    if model is not mixture:  # which its decorator hides from pickle
        torch.testing.assert_close(pickle.loads(pickle.dumps(target)).log_prob(z), expected[0])


@pytest.mark.parametrize(("model", "data", "sizes"), [*CASES[:11], *CASES[13:16]])
def test_likelihoods_and_predictions_are_of_all_rows(
    model: Callable[..., None], data: Tensor, sizes: tuple[int, ...]
) -> None:
    target, whole = PyroTarget(model, data, *sizes), PyroTarget(model, data)
    z = torch.randn(3, whole.dim, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(target.log_likelihood(z), whole.log_likelihood(z))
    found, expected = target.predict(z, seed=0), whole.predict(z, seed=0)
    assert {n: x.shape for n, x in found.items()} == {n: x.shape for n, x in expected.items()}
    name = next(iter(found))
    assert len(found[name].unique()) == found[name].numel()


def test_predictions_are_about_the_values_of_their_own_rows() -> None:
    target, z = PyroTarget(by_row, Y, 3), 100.0 * torch.arange(10.0).unsqueeze(0)
    assert bool(((target.predict(z, seed=0)["y"] - z).abs() < 6).all())
    longer = torch.zeros(12)
    with pytest.raises(TargetError, match=r"plate 'data' has 12 rows.*the 10 rows that they were"):
        target.predict(z, seed=0, args=(longer, 3))


def test_draws_of_the_prior_have_one_global_value_for_all_rows() -> None:
    """t ~ N(mu, 1) with mu ~ N(0, 1): a correlation of 1/2 between rows, 400 draws to 0.04."""
    target = PyroTarget(side_by_side, Y, 3)
    draws = target.prior_draws(400, 0)
    assert draws is not None and draws.shape == (400, 11)
    correlation = torch.corrcoef(draws[:, 1:].T)
    off = correlation[~torch.eye(10, dtype=torch.bool)]
    assert off.mean().item() == pytest.approx(0.5, abs=0.1)
    assert draws.var(0)[1:].mean().item() == pytest.approx(2.0, abs=0.3)


def test_fifty_rows_in_batches_of_two_have_the_exact_posterior() -> None:
    """t_i | y is N(y_i / 2, 1/2), and y_i ~ N(0, 2); 20 000 draws tell an sd to 0.5 %."""
    fit = NFVI("scale-loc", seed=1).fit(by_row, MANY, 2, steps=1_500, n_mc=16)
    t = fit.sample(20_000, seed=0)["t"]
    assert t.shape == (20_000, 50)
    assert bool(((t.mean(0) - MANY / 2).abs() < 0.03).all())
    assert bool(((t.std(0) / 0.5**0.5 - 1).abs() < 0.03).all())
    evidence = dist.Normal(0.0, 2.0**0.5).log_prob(MANY).sum().item()
    assert fit.log_evidence == pytest.approx(evidence, abs=0.01)
    assert fit.settings["evaluation"] == "traced"
    assert [name for name in fit.summary().index if name.startswith("t[")] == [
        f"t[{row}]" for row in range(50)
    ]
    posterior = fit.to_arviz().posterior
    assert posterior["t"].dims[2:] == ("data",) and posterior["t"].sizes["data"] == 50


def test_a_loop_over_the_rows_is_right_and_told() -> None:
    def model(y, size=None):
        numbers = y.tolist()
        with pyro.plate("data", len(y), subsample_size=size) as i:
            t = pyro.sample("t", dist.Normal(0.0, 1.0))
            batch = torch.tensor([numbers[int(j)] for j in i])
            pyro.sample("y", dist.Normal(t, 1.0), obs=batch)

    with pytest.warns(UserWarning, match=r"is run 5 times for each point.*\.item\(\)"):
        target = PyroTarget(model, Y, 3)
    z = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(target.log_prob(z), PyroTarget(model, Y).log_prob(z))


def test_a_deterministic_site_of_the_rows_of_a_run_is_left_out_and_told() -> None:
    def model(y, size):
        with pyro.plate("data", len(y), subsample_size=size) as i:
            t = pyro.sample("t", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(t, 1.0), obs=y[i])
        pyro.deterministic("sum", t.sum())

    with pytest.warns(UserWarning, match="deterministic site 'sum' is left out"):
        target = PyroTarget(model, Y, 3)
    assert list(target.constrain(torch.zeros(1, 10))) == ["t"]


def test_many_points_go_in_pieces() -> None:
    target = PyroTarget(hierarchical, Y, 3)
    z = torch.randn(9, target.dim, generator=torch.Generator().manual_seed(0))
    pieces = in_pieces(target.log_prob, 2.0**26)  # two points at once
    leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    found, expected = pieces(leaf), target.log_prob(other)
    torch.testing.assert_close(found, expected)
    slopes = [
        torch.autograd.grad(value.square().sum(), point)[0]
        for value, point in ((found, leaf), (expected, other))
    ]
    torch.testing.assert_close(*slopes)


def test_out_of_range_values_are_minus_infinity_where_a_weight_is_negative() -> None:
    def model(y, size):
        with pyro.plate("data", len(y), subsample_size=size) as i:
            t = pyro.sample("t", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Uniform(t - 9.0, t + 9.0, validate_args=False), obs=y[i])

    z = torch.zeros(2, 10)
    z[0, -1] = 100.0  # of the last row, which is repeated
    found = PyroTarget(model, Y, 3).log_prob(z)
    assert found[0] == -torch.inf and found[1].isfinite()


def data_of_the_rows_at_hand(y, size=2):
    with pyro.plate("data", 50, subsample_size=size):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[:size])


def data_in_their_own_order(y):
    with pyro.plate("data", len(y), subsample_size=2) as i:
        t = pyro.sample("t", dist.Normal(y[i], 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[:2])


def in_a_loop(y):
    for i in pyro.plate("data", len(y), subsample_size=2):
        t = pyro.sample(f"t_{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"y_{i}", dist.Normal(t, 1.0), obs=y[i])


def with_a_mean(y):
    with pyro.plate("data", len(y), subsample_size=2) as i:
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[i])
    pyro.factor("near", -(t.mean() ** 2))


def relative_to_the_run(y):
    with pyro.plate("data", len(y), subsample_size=4) as i:
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.factor("near", -((t - t.mean()) ** 2))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[i])


@config_enumerate
def of_one_kind(y, size=4):
    k = pyro.sample("k", dist.Bernoulli(0.5))
    with pyro.plate("data", len(y), subsample_size=size) as i:
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(t + k, 1.0), obs=y[i])


def too_many(y):
    with pyro.plate("data", 10**13, subsample_size=2) as i:
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y[i % 10])


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (data_of_the_rows_at_hand, (), r"data of site 'y' do not follow .*2 of 50.*y\[i\] or pyro"),
        (data_of_the_rows_at_hand, (1,), r"does not read the indices.*Give the model the data of"),
        (data_in_their_own_order, (), "data of site 'y' do not follow the indices of plate 'data'"),
        (in_a_loop, (), r"'data' is a loop over 2 of 10 rows.*'t_\d'.*leave subsample_size= out"),
        (with_a_mean, (), "site 'near' is outside of plate 'data'.*leave subsample_size= out"),
        (relative_to_the_run, (), "site 'near' .*depends on the other rows.*leave subsample_size="),
        (
            of_one_kind,
            (),
            "must be scaled alike, by one subsampling plate.*without subsample_size=",
        ),
        (of_one_kind, (1,), "discrete site outside of plate 'data'.*leave subsample_size= out"),
        (too_many, (), r"10,000,000,000,000 rows of plate 'data' needs .* GB of memory.*integrat"),
    ],
)
def test_what_is_no_sum_over_all_rows_is_refused(
    model: Callable[..., None], arguments: tuple[int, ...], message: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TargetError, match=message):
            PyroTarget(model, Y, *arguments)
