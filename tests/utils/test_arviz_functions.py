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


# Sizes on both sides of where the tail's rule changes, and where 3√n is and is not whole.
@pytest.mark.parametrize("n", [25, 29, 100, 224, 225, 226, 900, 1000, 4097])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_psislw_agrees(request, rng, n, scale):
    log_weights = scale * rng.normal(size=n)
    given = log_weights.copy()
    with np.errstate(over="ignore"):
        (new, new_khat), (old, old_khat) = in_both(request, lambda: functions.psislw(log_weights))
    np.testing.assert_allclose(old, new, rtol=1e-9, atol=1e-9)
    assert old_khat == pytest.approx(new_khat, rel=1e-9, abs=1e-9)
    assert type(old_khat) is type(new_khat) is float
    np.testing.assert_array_equal(log_weights, given)


@pytest.mark.parametrize("only_0", [False, True])
def test_psislw_leaves_the_body_and_finds_the_shape(request, rng, only_0):
    """Pareto weights of shape 1/2, whose k-hat scatters by about 0.09 with a tail of 299."""
    if only_0:
        request.getfixturevalue("only_arviz_0")
    log_weights = 0.5 * rng.exponential(size=10_000)
    smoothed, khat = functions.psislw(log_weights)
    assert khat == pytest.approx(0.5, abs=0.3)
    assert np.exp(smoothed).sum() == pytest.approx(1)
    order = np.argsort(log_weights)
    body = order[: -functions.tail_length(10_000)]
    shift = smoothed[body] - log_weights[body]
    np.testing.assert_allclose(shift, shift[0], atol=1e-12)
    assert (np.diff(smoothed[order]) >= 0).all()


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
