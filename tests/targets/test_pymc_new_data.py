"""``fit.predict(data=...)``: PyMC's own predictions, and a model that is as it was afterwards."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pm = pytest.importorskip("pymc")

from models import pot1  # noqa: E402
from nfvi import NFVI, Fit, PyMCTarget, TargetError  # noqa: E402
from tests.targets.pymc_models import eight_schools  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation")

QUICK = "FAST_COMPILE"
X = np.linspace(-1.0, 1.0, 20)
Y = 1.0 + 2.0 * X + 0.5 * np.random.default_rng(0).normal(size=20)
NEW = np.array([3.0, -1.0, 0.0])
N = 4_000


def regression() -> Any:
    """A line with known noise, so that its posterior predictive law is normal and known."""
    with pm.Model(coords={"row": [f"r{i}" for i in range(20)]}) as model:
        x = pm.Data("x", X, dims="row")
        y = pm.Data("y_seen", Y, dims="row")
        mean = pm.Normal("a", 0, 5) + pm.Normal("b", 0, 5) * x
        line = pm.Deterministic("line", mean, dims="row")
        pm.Normal("y", line, 0.5, observed=y, dims="row")
    return model


def fitted(model: Any, steps: int = 300) -> Fit:
    target = PyMCTarget(model, mode=QUICK)
    start = NFVI("tril", seed=1)
    return start.fit(target, steps=steps, n_mc=32, restarts=1, progress=False)


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fitted(regression())


def held(model: Any) -> tuple[Any, ...]:
    """All of a model that new data change."""
    values = {x.name: x.get_value().tolist() for x in model.data_vars}
    shared = {n: x.get_value().item() for n, x in model.dim_lengths.items() if x.owner is None}
    return values, shared, dict(model.coords)


def law() -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of new data at NEW."""
    design, new = (np.stack([np.ones_like(x), x], 1) for x in (X, NEW))
    cov = np.linalg.inv(design.T @ design / 0.25 + np.eye(2) / 25)
    return new @ cov @ design.T @ Y / 0.25, np.sqrt(((new @ cov) * new).sum(1) + 0.25)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_posterior_predictive_law(fit: Fit, weighted: bool) -> None:
    model = fit.target.model
    before = held(model)
    labels = {"row": ["p", "q", "r"]}
    drawn = fit.predict(N, data={"x": NEW}, coords=labels, weighted=weighted, seed=0)
    assert {name: x.shape for name, x in drawn.items()} == {"y": (N, 3), "line": (N, 3)}
    assert held(model) == before
    mean, sd = law()
    # Five standard errors, the resampling of weighted draws in them, and 0.02 for the fit.
    error = 5 * sd / (N / 4) ** 0.5 if weighted else 5 * sd / N**0.5
    assert (np.abs(drawn["y"].mean(0).numpy() - mean) < error + 0.02).all()
    assert (np.abs(drawn["y"].std(0).numpy() - sd) < error + 0.02).all()
    noise = (drawn["y"] - drawn["line"]).std(0)
    assert ((noise - 0.5).abs() < 5 * 0.5 / (2 * N) ** 0.5).all()


def test_it_is_what_pymc_predicts(fit: Fit) -> None:
    model = regression()
    with model:
        labels = {"row": ["p", "q", "r"]}
        pm.set_data({"x": NEW, "y_seen": np.zeros(3)}, coords=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = pm.sample_posterior_predictive(
            fit.to_arviz(N, seed=1),
            model=model,
            predictions=True,
            progressbar=False,
            random_seed=1,
            compile_kwargs={"mode": QUICK},
        )["predictions"]["y"]
    drawn = fit.predict(N, data={"x": NEW}, seed=2)["y"].numpy()
    assert known.dims == ("chain", "draw", "row") and known.shape == (1, *drawn.shape)
    # Five standard errors of a difference of means, and of one of quantiles, of a normal law.
    sd = drawn.std(0)
    assert (np.abs(drawn.mean(0) - known.values[0].mean(0)) < 5 * sd * (2 / N) ** 0.5).all()
    for q in (0.1, 0.9):
        gap = np.quantile(drawn, q, axis=0) - np.quantile(known.values[0], q, axis=0)
        assert (np.abs(gap) < 5 * 1.71 * sd * (2 / N) ** 0.5).all()


def test_of_the_prior(fit: Fit) -> None:
    y = fit.predict(1_000, data={"x": NEW}, prior=True, seed=0)["y"].numpy()
    sd = np.sqrt(25 + 25 * NEW**2 + 0.25)
    assert (np.abs(y.std(0) / sd - 1) < 5 / 2_000**0.5).all()


def test_seeds_and_kinds_of_arrays(fit: Fit) -> None:
    first = fit.predict(5, data={"x": NEW}, seed=3)["y"]
    for kind in (list, torch.tensor, pd.Series):
        assert torch.equal(fit.predict(5, data={"x": kind(NEW)}, seed=3)["y"], first)
    assert torch.equal(fit.predict(5, data={"x": [3, -1, 0]}, seed=3)["y"], first)


def test_coordinates_alone_stretch_a_dimension() -> None:
    """That no container measures; here the mean is one number for all rows."""
    with pm.Model(coords={"row": range(20)}) as model:
        pm.Normal("y", pm.Normal("a", 0, 5), 0.5, observed=Y, dims="row")
    drawn = fitted(model, 10).predict(7, coords={"row": ["p", "q"]})
    assert {name: x.shape for name, x in drawn.items()} == {"y": (7, 2)}
    assert model.coords["row"] == tuple(range(20))


def test_data_of_the_fit_where_there_are_none_new(fit: Fit) -> None:
    """Whatever the model holds by now; and that is what it holds afterwards."""
    model = fit.target.model
    again = PyMCTarget(regression(), mode=QUICK)
    with again.model:
        pm.set_data({"x": NEW, "y_seen": NEW}, coords={"row": ["p", "q", "r"]})
    changed = held(again.model)
    z = fit.weighted_draws(4, seed=0).z
    assert again.predict(z, seed=0)["y"].shape == (4, 20)
    assert torch.equal(again.predict(z, seed=0)["y"], fit.target.predict(z, seed=0)["y"])
    assert again.prior_draws(3, 0).shape == (3, 2)
    assert held(again.model) == changed != held(model)


def test_new_groups_are_drawn_from_their_prior(caplog: pytest.LogCaptureFixture) -> None:
    model = eight_schools()
    fit = fitted(model, 20)
    error = np.array([1.0, 2.0])
    caplog.set_level(logging.INFO, logger="nfvi")
    new = fit.predict(500, data={"error": error}, coords={"school": ["A", "B"]}, seed=0)
    assert {name: x.shape[1:] for name, x in new.items()} == dict.fromkeys(
        ("y", "step", "theta"), (2,)
    )
    assert "step: drawn from the prior" in caplog.text
    # 1 000 draws of a standard normal, and of y about theta: five standard errors.
    noise = (new["y"] - new["theta"]) / torch.from_numpy(error)
    for standard in (new["step"], noise):
        assert abs(float(standard.mean())) < 5 / 1_000**0.5
        assert abs(float(standard.std()) - 1) < 5 / 2_000**0.5
    # With other errors for the same schools, theta is that of the fit.
    same, other = (fit.predict(5, data={"error": np.full(8, s)}, seed=0) for s in (2.0, 3.0))
    assert set(same) == {"y", "theta"} and torch.equal(same["theta"], other["theta"])
    assert not torch.equal(same["y"], other["y"])


def test_nothing_of_pymc_is_on_the_screen(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fit.predict(5, data={"x": NEW}, seed=0)
    assert not [record for record in caplog.records if record.name.startswith("pymc")]


WRONG = {
    "no such container": ({"data": {"w": NEW}}, r"names 'w'; the pm.Data of .* 'x' of shape \(20,"),
    "dimensions": ({"data": {"x": np.zeros((2, 2))}}, r"2 dimensions for 'x', whose shape is \(20"),
    "kind": ({"data": {"x": ["a", "b"]}}, r"<U1 for 'x', which holds float64"),
    "labels": ({"coords": {"column": [1]}}, r"names 'column'; the dimensions of .* are 'row'"),
    "lengths": ({"data": {"x": NEW}, "coords": {"row": [1]}}, "two lengths: 1 by coords='row', 3"),
    "left out": ({"coords": {"row": [1, 2]}}, "is 2 long now, and 'x' has 20 along it"),
    "arguments": ({"args": (NEW,)}, r"no arguments; pass .* fit.predict\(data={'x': x_new}\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_clear_error(fit: Fit, name: str) -> None:
    given, said = WRONG[name]
    before = held(fit.target.model)
    with pytest.raises(TargetError, match=said):
        fit.predict(5, **given)
    assert held(fit.target.model) == before


def test_other_errors(fit: Fit) -> None:
    with pytest.raises(TypeError, match="data= takes a dict by name; got list"):
        fit.predict(5, data=[NEW])
    with pytest.raises(ValueError, match=r"args= and kwargs= are for Pyro .* data= and coords="):
        fit.predict(5, data={"x": NEW}, args=(NEW,))
    other = NFVI("loc", seed=1).fit(pot1, steps=2, restarts=1, progress=False)
    with pytest.raises(TargetError, match=r"for the pm.Data of a PyMC model, which 'pot1' is not"):
        other.predict(5, data={"x": NEW})
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("a"), 1.0, observed=0.3)
    with pytest.raises(TargetError, match=r"has no pm.Data, so that its data cannot be others"):
        fitted(model, 2).predict(5, data={"x": NEW})


@pytest.mark.parametrize("new", [NEW, NEW[:1]])
def test_a_variable_that_does_not_follow_is_told_of(new: np.ndarray) -> None:
    """A mean of length 1 would be taken for twenty rows; and the model is put back."""
    with pm.Model() as model:
        x = pm.Data("x", X)
        pm.Normal("y", pm.Normal("a") * x, 1.0, observed=Y)
    fit, before = fitted(model, 2), held(model)
    with pytest.raises(TargetError, match=r"let observed variables follow: .*shape=mu.shape"):
        fit.predict(5, data={"x": new})
    assert held(model) == before
    assert fit.predict(5, data={"x": X[::-1].copy()})["y"].shape == (5, 20)
