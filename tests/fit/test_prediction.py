"""Data drawn at draws of a fit, weighted ones, and those of the prior."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from models import pot1
from nfvi import NFVI, Fit, PyroTarget
from nfvi.errors import TargetError

X = torch.tensor([0.0, 1.0, 2.0])


def line(x: Tensor, y: Tensor | None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Its posterior is N(5/6, 1/√6): the precision is 1 + Σx² = 6, and Σxy = 5."""
    target = PyroTarget(line, X, X)
    return NFVI("scale-loc", seed=1).fit(target, steps=300, restarts=1)


N = 4000


@pytest.mark.parametrize("weighted", [False, True])
def test_new_data_have_the_posterior_predictive_law(fit: Fit, weighted: bool) -> None:
    x = torch.tensor([3.0])
    y = fit.predict(N, args=(x, None), weighted=weighted, seed=0)["y"][:, 0]
    sd = (9 / 6 + 1) ** 0.5
    # Five standard errors, and 0.02 sd of the slope, times 3, for the fit.
    assert float(y.mean()) == pytest.approx(3 * 5 / 6, abs=5 * sd / N**0.5 + 0.03)
    assert float(y.std()) == pytest.approx(sd, abs=5 * sd / (2 * N) ** 0.5 + 0.03)


def test_of_the_prior(fit: Fit) -> None:
    y = fit.predict(1000, prior=True, seed=0)["y"]
    expected = (X.square() + 1).sqrt()
    torch.testing.assert_close(y.std(0), expected, rtol=5 / 2000**0.5, atol=0)


def test_seeds_repeat_and_the_stream_goes_on(fit: Fit) -> None:
    first, again = (fit.predict(5, seed=3)["y"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(fit.predict(5)["y"], fit.predict(5)["y"])


def test_keyword_arguments(fit: Fit) -> None:
    assert fit.predict(5, args=(), kwargs={"x": X[:2], "y": None})["y"].shape == (5, 2)


def test_draws_as_a_table(fit: Fit) -> None:
    table = fit.to_dataframe(6, seed=0)
    assert list(table.columns) == ["slope"]
    assert table["slope"].tolist() == fit.sample(6, seed=0)["slope"].tolist()
    function = NFVI("scale-loc", seed=1).fit(pot1, steps=5, restarts=1)
    assert list(function.to_dataframe(2).columns) == ["z[0]", "z[1]"]


def test_wrong_arguments(fit: Fit) -> None:
    with pytest.raises(ValueError, match="pass one"):
        fit.predict(5, weighted=True, prior=True)
    with pytest.raises(TypeError, match=r"args= takes a tuple"):
        fit.predict(5, args=X)
    with pytest.raises(ValueError, match="n must"):
        fit.predict(0)
    with pytest.raises(TypeError, match=r"kwargs= takes a dict"):
        fit.predict(5, kwargs=3)
    for name in ("weighted", "prior"):
        with pytest.raises(ValueError, match=f"{name} must be True or False, got 'no'"):
            fit.predict(5, **{name: "no"})


def test_a_function_has_nothing_to_draw() -> None:
    fit = NFVI("scale-loc", seed=1).fit(pot1, steps=5, restarts=1)
    with pytest.raises(TargetError, match="from which no data can be drawn"):
        fit.predict(5)
