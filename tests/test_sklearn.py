"""FlowDensity behaves as scikit-learn expects of a density estimator."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import nfvi
from nfvi import NFVI, FlowDensity

QUICK = FlowDensity("scale-loc", epochs=2)


def normal(n: int = 200, d: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * 3 + 5


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([QUICK])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


def test_it_is_fit_data():
    X = normal()
    found = FlowDensity("scale-loc", epochs=20, random_state=3).fit(X)
    seed = found.density_.seed
    same = NFVI("scale-loc", seed=seed).fit_data(torch.from_numpy(X), epochs=20)
    assert np.array_equal(found.score_samples(X), same.score_samples(X))
    assert found.score(X) == pytest.approx(same.score(X), rel=1e-12)
    assert found.score_samples(X).dtype == np.float64
    assert found.score_samples(X.astype(np.float32)).dtype == np.float32


def test_random_state_fixes_fit_and_draws():
    X = normal()
    a, b, c = (FlowDensity("scale-loc", epochs=3, random_state=s).fit(X) for s in (1, 1, 2))
    assert np.array_equal(a.score_samples(X), b.score_samples(X))
    assert not np.array_equal(a.score_samples(X), c.score_samples(X))
    assert np.array_equal(a.sample(5, random_state=4), a.sample(5, random_state=4))
    assert a.sample(5).shape == (5, 2) and a.sample(5).dtype == np.float64


def test_weights_count_rows():
    """Half of the rows with weight 0 are as good as gone."""
    X = np.concatenate([normal(100), normal(100, seed=1) + 100])
    weights = np.repeat([1.0, 0.0], 100)
    options = {"epochs": 30, "validation": 0, "batch_size": 100, "random_state": 0}
    whole = FlowDensity("scale-loc", **options).fit(X, sample_weight=weights)
    half = FlowDensity("scale-loc", **options).fit(X[:100])
    np.testing.assert_allclose(whole.score_samples(X[:100]), half.score_samples(X[:100]))


def test_grid_search_finds_the_better_formula():
    """Correlated columns need more than a shift and a scale; a pipeline leaves that unchanged."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    X = np.stack([x, x + 0.1 * rng.normal(size=400)], 1)
    estimator = FlowDensity(epochs=200, validation=0, lr=0.02, random_state=0)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator),
        {"flowdensity__formula": ["scale-loc", "maf(hidden=[8])"]},
        cv=2,
    ).fit(X)
    assert search.best_params_ == {"flowdensity__formula": "maf(hidden=[8])"}


def test_clone_and_parameters():
    estimator = FlowDensity("maf*2", base="laplace", lr=0.1, random_state=5)
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(formula="iaf").formula == "iaf"


def test_pickle_keeps_the_density_and_leaves_the_data_behind():
    X = normal(5_000)
    found = FlowDensity("maf(hidden=[8])", epochs=1, random_state=0).fit(X)
    stored = pickle.dumps(found)
    again = pickle.loads(stored)
    assert np.array_equal(again.score_samples(X), found.score_samples(X))
    assert np.array_equal(again.sample(4, random_state=1), found.sample(4, random_state=1))
    assert len(stored) < X.nbytes / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "planer"}, "planar"),
        ({"validation": 1.5}, "validation must be a fraction"),
        ({"epochs": 0}, "epochs must be an integer"),
        ({"lr": -1}, "lr must be a positive number"),
    ],
)
def test_wrong_parameters_are_found_when_fitted(options, message):
    with pytest.raises(ValueError, match=message):
        FlowDensity(**{"formula": "loc", **options}).fit(normal())


def test_without_scikit_learn_the_package_works_and_says_what_is_missing(monkeypatch):
    """``import nfvi`` does without, as tests/test_package.py says."""
    monkeypatch.delitem(sys.modules, "nfvi.sklearn")
    for name in ("sklearn", "sklearn.base"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "FlowDensity" in dir(nfvi)
    with pytest.raises(ImportError, match=r"nfvi\[sklearn\]"):
        nfvi.FlowDensity  # noqa: B018


def test_unknown_names_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'FlowDensite'"):
        nfvi.FlowDensite  # noqa: B018
