"""NumPyro models: log-likelihoods by observation, and new data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfvi import NFVI, NumPyroTarget, TargetError

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")
import numpyro.distributions as dist  # noqa: E402
from numpyro.contrib.funsor import config_enumerate  # noqa: E402

X = np.array([0.0, 1.0, 2.0])
Y = np.array([0.1, 0.9, 2.2])


def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        mean = numpyro.deterministic("mean", slope * x)
        numpyro.sample("y", dist.Normal(mean, 0.1), obs=y)


@pytest.fixture(scope="module")
def target():
    return NumPyroTarget(line, X, Y)


def test_log_likelihood_is_that_of_each_observation(target):
    z = torch.tensor([[0.5], [1.1]], dtype=torch.float64)
    found = target.log_likelihood(z)
    assert list(found) == ["y"]
    expected = torch.distributions.Normal(z * torch.as_tensor(X), 0.1)
    torch.testing.assert_close(found["y"], expected.log_prob(torch.as_tensor(Y)))
    assert target.log_likelihood(z.float())["y"].dtype == torch.float32


def test_predictions_for_new_rows(target):
    z, x = torch.linspace(-1, 1, 5)[:, None], np.array([10.0, -10.0])
    state = torch.get_rng_state()
    found = target.predict(z, seed=0, args=(x, None))
    mean = z * torch.as_tensor(x).float()
    torch.testing.assert_close(found["mean"], mean)
    # Ten draws with sd 0.1 lie within half a unit, but for one case in a million.
    assert ((found["y"] - mean).abs() < 0.5).all() and len(found["y"].unique()) == 10
    again = target.predict(z, seed=0, args=(x,), kwargs={"y": None})
    assert torch.equal(found["y"], again["y"])
    assert torch.equal(state, torch.get_rng_state())


def test_data_of_more_dimensions_than_their_distribution():
    def model(y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a, 1.0), obs=y)

    found = NumPyroTarget(model, Y).predict(torch.zeros(500, 1), seed=0)["y"]
    assert found.shape == (500, 3)
    # Five standard errors of 1 500 independent draws.
    assert float(found.std()) == pytest.approx(1.0, abs=5 / 3000**0.5)


def test_all_groups_of_arviz(target):
    fit = NFVI("scale-loc", seed=1).fit(target, steps=20, n_mc=8, restarts=1)
    fit.search(draws=1000)
    data = fit.to_arviz(50, seed=0, predictions=True)
    for group in ("log_likelihood", "posterior_predictive", "prior_predictive"):
        assert data[group]["y"].dims == ("chain", "draw", "rows")
    noise = (data["prior_predictive"]["y"] - data["prior"]["mean"]).values / 0.1
    assert noise.std() == pytest.approx(1.0, abs=5 / 300**0.5)


def scaled(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.handlers.scale(scale=0.5):
        numpyro.sample("y", dist.Normal(a, 1.0), obs=y)


@config_enumerate
def summed(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", len(y)):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(a * k, 1.0), obs=y)


def without_data(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.factor("y", -((y - a) ** 2).sum())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (scaled, "site 'y' is scaled"),
        (summed, "discrete sites that are summed out"),
        (without_data, "has no observed site"),
    ],
)
def test_what_is_no_log_likelihood_is_refused(model, message):
    with pytest.raises(TargetError, match=message):
        NumPyroTarget(model, Y).log_likelihood(torch.zeros(2, 1))


def test_groups_that_were_not_fitted_are_an_error():
    def model(y):
        with numpyro.plate("n", len(y)):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(a, 1.0), obs=y)

    with pytest.raises(TargetError, match="new data must have the same groups"):
        NumPyroTarget(model, Y).predict(torch.zeros(2, 3), seed=0, args=(np.ones(2),))
