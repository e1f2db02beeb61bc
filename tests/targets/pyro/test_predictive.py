"""What a Pyro model says of its data: names, log-likelihoods by observation, and new data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from models import eight_schools_noncentered
from nfvi import PyroTarget
from nfvi.errors import TargetError

SUMMED = {"enumerate": "parallel"}


def line(x: Tensor, y: Tensor | None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        mean = pyro.deterministic("mean", slope * x)
        pyro.sample("y", dist.Normal(mean, 0.1), obs=y)


X = torch.tensor([0.0, 1.0, 2.0])
Y = torch.tensor([0.1, 0.9, 2.2])


def test_names_and_data() -> None:
    target = PyroTarget(eight_schools_noncentered)
    names = dict.fromkeys(("eta", "theta", "y"), ("schools",))
    assert target.dims == {"mu": (), "tau": (), **names}
    assert list(target.observed_data) == ["y"]
    assert list(target.constant_data) == ["sigma"]
    assert target.observed_data["y"].tolist() == [28, 8, -3, 7, -1, 1, 18, 12]


def test_a_plate_names_the_batch_dimension_that_it_is() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("row", 3, dim=-2):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("column", 2, dim=-1):
                corner = pyro.sample("corner", dist.Normal(torch.zeros(4), 1.0).to_event(1))
                pyro.sample("y", dist.Normal(a + corner.sum(-1), 1.0), obs=y)

    dims = PyroTarget(model, torch.zeros(3, 2)).dims
    assert dims["corner"] == dims["y"] == ("row", "column")
    assert dims["a"] == ("row", "a_dim_1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_likelihood_is_that_of_each_observation(dtype: torch.dtype) -> None:
    target = PyroTarget(line, X, Y)
    z = torch.tensor([[0.5], [1.1]], dtype=dtype)
    found = target.log_likelihood(z)
    assert list(found) == ["y"] and found["y"].dtype == dtype
    expected = dist.Normal(z * X.to(dtype), 0.1).log_prob(Y.to(dtype))
    torch.testing.assert_close(found["y"], expected, rtol=1e-5, atol=1e-5)


def test_prior_and_likelihoods_add_up_to_the_density() -> None:
    target = PyroTarget(line, X, Y)
    z = torch.randn(5, 1, generator=torch.Generator().manual_seed(0))
    whole = target.log_likelihood(z)["y"].sum(1) + dist.Normal(0.0, 1.0).log_prob(z[:, 0])
    torch.testing.assert_close(target.log_prob(z), whole, rtol=1e-5, atol=1e-4)


def test_a_branch_on_a_value_goes_point_by_point() -> None:
    def model(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(a if float(a) > 0 else -3 * a, 1.0), obs=y)

    target, z = PyroTarget(model, Y), torch.tensor([[1.0], [-1.0]])
    mean = torch.tensor([[1.0], [3.0]])
    expected = dist.Normal(mean, 1.0).log_prob(Y)
    torch.testing.assert_close(target.log_likelihood(z)["y"], expected)
    drawn = target.predict(z.repeat(500, 1), seed=0)["y"].reshape(500, 2, 3).mean((0, 2))
    # Five standard errors of 1 500 draws with sd 1.
    torch.testing.assert_close(drawn, mean[:, 0], rtol=0, atol=5 / 1500**0.5)


def test_a_mask_hides_an_observation_and_a_vector_is_one() -> None:
    def model(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 3), pyro.poutine.mask(mask=torch.tensor([True, False, True])):
            pyro.sample("y", dist.Normal(a.expand(2), 1.0).to_event(1), obs=y)

    y = torch.ones(3, 2)
    found = PyroTarget(model, y).log_likelihood(torch.zeros(1, 1))["y"]
    one = 2 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(found, torch.stack([one, torch.tensor(0.0), one])[None])


def mixture(y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("n", len(y)):
        k = pyro.sample("k", dist.Categorical(weights), infer=SUMMED)
        pyro.sample("y", dist.Normal(torch.tensor([-3.0, 3.0])[k], 1.0), obs=y)


def test_each_observation_s_own_discrete_site_is_summed_out() -> None:
    target, z = PyroTarget(mixture, Y), torch.tensor([[0.3], [-1.0]])
    weights = target.constrain(z)["weights"]
    terms = dist.Normal(torch.tensor([-3.0, 3.0]), 1.0).log_prob(Y[:, None])
    expected = torch.logsumexp(weights.log()[:, None] + terms, -1)
    torch.testing.assert_close(target.log_likelihood(z)["y"], expected)
    drawn = target.predict(z.repeat(1000, 1), seed=0)["y"].reshape(1000, 2, 3) > 0
    # Five standard errors of a share of 3 000 draws; each part is on its own side of 0.
    share = drawn.double().mean((0, 2))
    torch.testing.assert_close(share, weights[:, 1].double(), rtol=0, atol=2.5 / 3000**0.5)


def test_a_shared_discrete_site_is_refused_by_name() -> None:
    def model(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        side = pyro.sample("side", dist.Bernoulli(0.5), infer=SUMMED)
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(a * (2 * side - 1), 1.0), obs=y)

    target = PyroTarget(model, Y)
    with pytest.raises(TargetError, match=r"site 'y' by observation is not available.*'side'"):
        target.log_likelihood(torch.zeros(2, 1))
    with pytest.raises(TargetError, match="site 'side' is summed out and shared"):
        target.predict(torch.zeros(2, 1), seed=0)


def subsampled(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("n", len(y), subsample_size=2) as index:
        pyro.sample("y", dist.Normal(a, 1.0), obs=y[index])


def tempered(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.poutine.scale(scale=0.5):
        pyro.sample("y", dist.Normal(a, 1.0), obs=y)


def without_data(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.factor("y", -((y - a) ** 2).sum())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (subsampled, "'y' is in plate 'n', which takes 2 of 3 rows"),
        (tempered, "'y' is scaled by poutine.scale"),
        (without_data, "no observed site"),
    ],
)
def test_what_is_no_log_likelihood_is_refused(model: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        PyroTarget(model, Y).log_likelihood(torch.zeros(2, 1))


class TestPredict:
    def test_it_repeats_and_leaves_the_global_generator_alone(self) -> None:
        target, z = PyroTarget(line, X, Y), torch.zeros(4, 1)
        state = torch.get_rng_state()
        first, again = (target.predict(z, seed=1)["y"] for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, target.predict(z, seed=2)["y"])
        assert torch.equal(state, torch.get_rng_state())
        assert len(first.unique()) == first.numel()

    def test_new_rows(self) -> None:
        target = PyroTarget(line, X, Y)
        x = torch.tensor([10.0, -10.0])
        z = torch.linspace(-1, 1, 5)[:, None]
        found = target.predict(z, seed=0, args=(x, None))
        torch.testing.assert_close(found["mean"], z * x)
        # Ten draws with sd 0.1 lie within half a unit, but for one case in a million.
        assert found["y"].shape == (5, 2)
        assert ((found["y"] - z * x).abs() < 0.5).all()

    def test_data_of_more_dimensions_than_their_distribution(self) -> None:
        def model(y: Tensor) -> None:
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(a, 1.0), obs=y)

        assert PyroTarget(model, Y).predict(torch.zeros(2, 1), seed=0)["y"].shape == (2, 3)

    def test_groups_that_were_not_fitted_are_an_error(self) -> None:
        target = PyroTarget(eight_schools_noncentered)
        with pytest.raises(TargetError, match="new data must have the same groups"):
            target.predict(torch.zeros(2, 10), seed=0, args=(torch.ones(3), torch.ones(3)))

    def test_a_model_without_data_is_an_error(self) -> None:
        with pytest.raises(TargetError, match="no observed site"):
            PyroTarget(without_data, Y).predict(torch.zeros(2, 1), seed=0)


def test_constants_called_as_a_site_are_left_out() -> None:
    def model(a: Tensor, y: np.ndarray) -> None:
        value = pyro.sample("a", dist.Normal(0.0, a).to_event(1))
        pyro.sample("y", dist.Normal(value.sum(), 1.0), obs=torch.as_tensor(y))

    target = PyroTarget(model, torch.ones(2), np.float32(1.0))
    assert not target.constant_data
    assert target.observed_data["y"] == 1.0
