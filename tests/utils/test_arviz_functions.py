"""Either line of ArviZ gives the same numbers; the tests' own environment has both."""

from __future__ import annotations

import sys
import warnings
from importlib import metadata

import numpy as np
import pytest

from nfvi.utils import arviz_functions as functions


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def only_arviz_0(monkeypatch):
    """As on Python 3.10: what ArviZ 1.x is made of cannot be imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pytest.importorskip("arviz")
    if not metadata.version("arviz").startswith("0."):
        pytest.skip("needs ArviZ 0.x")
    for name in ("arviz_stats", "arviz_stats.base", "arviz_base"):
        monkeypatch.setitem(sys.modules, name, None)
    assert functions._array_stats() is None


@pytest.fixture
def chains(rng) -> np.ndarray:
    """(4, 300, 6) of which half autocorrelated, one with a chain elsewhere."""
    x = rng.normal(size=(4, 300, 6))
    x[..., :3] = 0.1 * x[..., :3].cumsum(1)
    x[0, :, 5] += 2
    return x


def in_both(request, function):
    """What ``function`` gives with all of ArviZ installed, and with 0.x alone."""
    both = function()
    request.getfixturevalue("only_arviz_0")
    return both, function()


def test_chain_statistics_agree(request, chains):
    kinds = ("bulk", "tail", "mean", "sd")
    new, old = in_both(
        request,
        lambda: np.stack([functions.rhat(chains), *(functions.ess(chains, k) for k in kinds)]),
    )
    assert new.shape == (5, 6)
    np.testing.assert_allclose(old, new, rtol=1e-9)


def test_the_export_does_without_arviz_base(only_arviz_0, chains):
    groups = {
        "posterior": {"mu": chains[..., 0].astype(np.float32), "theta": chains},
        "sample_stats": {"diverging": np.zeros((4, 300), dtype=bool)},
    }
    data = functions.from_dict(groups, {"khat": 0.25})
    for group, arrays in groups.items():
        for name, x in arrays.items():
            np.testing.assert_array_equal(data[group][name].values, x)
            assert data[group][name].dtype == x.dtype
    assert data["posterior"]["theta"].dims == ("chain", "draw", "theta_dim_0")
    assert data.attrs["khat"] == data["posterior"].attrs["khat"] == 0.25


def test_arviz_stats_from_before_psis_is_passed_over(monkeypatch):
    """Version 0.3 is the last that Python 3.10 can have."""
    array_stats = type("BaseArray", (), {"rhat": None, "ess": None})()
    base = type(sys)("arviz_stats.base")
    base.array_stats = array_stats
    monkeypatch.setitem(sys.modules, "arviz_stats.base", base)
    assert functions._array_stats() is None


def test_both_lines_name_dimensions_alike(request, chains):
    """Of the posterior and of data, which have neither chains nor draws."""
    groups = {
        "posterior": {"theta": chains, "tau": chains[..., 0]},
        "observed_data": {"y": np.arange(6.0)},
        "constant_data": {"x": np.ones((6, 2), dtype=int)},
    }
    dims = {"theta": ["school"], "y": ["school"], "x": ["school", "column"]}
    coords = {"school": tuple("abcdef"), "column": ("one", "two"), "nowhere": (1, 2)}
    for data in in_both(request, lambda: functions.from_dict(groups, {}, dims, coords)):
        theta = data["posterior"]["theta"]
        assert theta.dims == ("chain", "draw", "school")
        assert theta["school"].values.tolist() == list("abcdef")
        np.testing.assert_array_equal(theta.sel(school="b").values, chains[..., 1])
        assert data["observed_data"]["y"].dims == ("school",)
        assert data["constant_data"]["x"].sel(column="two").dims == ("school",)
        assert data["constant_data"]["x"].dtype == int
        assert "nowhere" not in data["posterior"].coords
