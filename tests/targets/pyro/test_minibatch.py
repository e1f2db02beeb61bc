"""Plates that draw their own rows: all rows against a model without, and fits by fresh ones."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from nfvi import NFVI, PyroTarget
from nfvi.targets import minibatch, takes_rows, unnormalised_terms

F64 = torch.float64
N, P = 203, 2
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, P, generator=GENERATOR, dtype=F64)
Y = X @ torch.tensor([1.0, -2.0], dtype=F64) + torch.randn(N, generator=GENERATOR, dtype=F64)
ZERO = torch.zeros((), dtype=F64)


def regression(x, y, size=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(P, dtype=F64), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(ZERO, 1.0))
    with pyro.plate("data", len(x), subsample_size=size) as i:
        pyro.sample("y", dist.Normal(x[i] @ w, sigma), obs=y[i])


def of_two(x, y, size=None):
    """A mixture of two in each row, summed over; the rows are taken by pyro.subsample."""
    mu = pyro.sample("mu", dist.Normal(ZERO, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(y), subsample_size=size):
        batch = pyro.subsample(y, event_dim=0)
        k = pyro.sample("k", dist.Bernoulli(ZERO + 0.3), infer={"enumerate": "parallel"}).long()
        pyro.sample("y", dist.Normal(mu[k], 1.0), obs=batch)


def value_and_slope(target, z):
    leaf = z.clone().requires_grad_()
    value = target.log_prob(leaf)
    return value.detach(), torch.autograd.grad(value.square().sum(), leaf)[0]


@pytest.mark.parametrize("size", [1, 7, 29, 100, 202])
def test_log_prob_is_that_of_all_rows(size):
    target, whole = PyroTarget(regression, X, Y, size), PyroTarget(regression, X, Y)
    assert (target.rows, target.batch_size, target.subsamples) == (N, size, {})
    assert takes_rows(target) and not takes_rows(whole)
    z = torch.randn(4, P + 1, generator=torch.Generator().manual_seed(1), dtype=F64)
    for found, expected in zip(value_and_slope(target, z), value_and_slope(whole, z), strict=True):
        torch.testing.assert_close(found, expected)


def test_sums_over_discrete_sites_in_the_plate_add_up():
    target, whole = PyroTarget(of_two, X, Y, 29), PyroTarget(of_two, X, Y)
    z = torch.tensor([[0.3, -1.0]], dtype=F64)
    assert target.rows == N
    torch.testing.assert_close(target.log_prob(z), whole.log_prob(z))


def test_the_integral_over_all_rows_is_the_evidence():
    target = PyroTarget(regression, X, Y, 29)
    assert unnormalised_terms(target, of_all_rows=True) == {}
    assert list(unnormalised_terms(target)) == ["y"]


def test_given_rows_are_scaled_and_drawn_anew():
    target = PyroTarget(regression, X, Y, 29)
    generator = torch.Generator().manual_seed(0)
    (rows,), (others,) = target.draw_rows(generator), target.draw_rows(generator)
    assert len(rows.unique()) == 29 and not torch.equal(rows, others)
    z = torch.zeros(1, P + 1, dtype=F64)
    values = target.constrain(z)
    prior = dist.Normal(ZERO, 1.0).log_prob(values["w"]).sum()
    prior += dist.Normal(ZERO, 1.0).log_prob(z[0, -1])
    likelihood = dist.Normal(ZERO, values["sigma"]).log_prob(Y[rows]).sum()
    torch.testing.assert_close(target.log_prob_of(z, (rows,))[0], prior + N / 29 * likelihood)


def of_their_mean(y):
    """A term of all rows together, so that the density is no sum over them."""
    mu = pyro.sample("mu", dist.Normal(ZERO, 1.0))
    with pyro.plate("data", len(y), subsample_size=4) as i:
        batch = y[i]
    pyro.factor("together", -((mu - batch.mean()) ** 2))


def test_a_density_that_is_no_sum_over_rows_keeps_one_subsample():
    with pytest.warns(UserWarning, match="plate 'data' draws its own subsample"):
        target = PyroTarget(of_their_mean, Y)
    assert target.rows == 0 and list(target.subsamples) == ["data"]


def test_a_fit_sees_fresh_rows_and_finds_the_posterior_of_all(monkeypatch):
    monkeypatch.setattr(minibatch, "LOOK", 2_000 * N)

    def known_sd(x, y, size):
        w = pyro.sample("w", dist.Normal(torch.zeros(P, dtype=F64), 1.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=size) as i:
            pyro.sample("y", dist.Normal(x[i] @ w, 1.0), obs=y[i])

    fit = NFVI("scale-loc", seed=1).fit(known_sd, X, Y, 29, steps=1_000, n_mc=8)
    covariance = torch.linalg.inv(X.T @ X + torch.eye(P, dtype=F64))
    mean, sd = covariance @ X.T @ Y, covariance.diagonal().sqrt()
    found = fit.sample(20_000, seed=0)["w"]
    # 20 000 draws tell a mean to 0.007 sd and an sd to 0.5 %.
    assert bool(((found.mean(0) - mean).abs() < 0.05 * sd).all())
    assert bool(((found.std(0) / sd - 1).abs() < 0.05).all())
    assert fit.settings["evaluation"] == "traced"
    assert (fit.settings["rows"], fit.settings["batch_size"]) == (N, 29)
    evidence = dist.MultivariateNormal(
        torch.zeros(N, dtype=F64), X @ X.T + torch.eye(N, dtype=F64)
    ).log_prob(Y)
    assert fit.log_evidence == pytest.approx(float(evidence), abs=0.02)
    assert math.isfinite(fit.elbo)
