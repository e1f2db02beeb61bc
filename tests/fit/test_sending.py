"""Fits go through pickle, with their target where that can."""

from __future__ import annotations

import pickle
import threading

import pytest
import torch

from models import eight_schools_noncentered
from nfvi import NFVI, Fit, LogDensity
from nfvi.errors import FitError
from nfvi.fit import sending


def again(fit: Fit) -> Fit:
    found = pickle.loads(pickle.dumps(fit))
    assert isinstance(found, Fit)
    return found


def test_a_fit_goes_on_where_it_was() -> None:
    fit = NFVI("scale-loc", seed=1).fit(eight_schools_noncentered, steps=5, restarts=2)
    fit.sample(3)
    copy = again(fit)
    assert torch.equal(fit.sample(3)["theta"], copy.sample(3)["theta"])
    one, other = (each.weighted_draws(5, seed=0) for each in (fit, copy))
    assert torch.equal(one.log_p, other.log_p)
    assert str(copy.restarts) == str(fit.restarts) and copy.settings == fit.settings
    assert copy.predict(2, seed=0)["y"].shape == (2, 8)
    copy.refine(2)
    assert (copy.steps, fit.steps) == (7, 5)


def of_lambda() -> Fit:
    target = LogDensity(lambda z: -0.5 * z.square().sum(-1), 2)
    return NFVI("scale-loc", seed=1).fit(target, steps=5, restarts=1)


def test_a_lambda_goes_by_cloudpickle() -> None:
    pytest.importorskip("cloudpickle")
    fit = of_lambda()
    one, other = (each.weighted_draws(5, seed=0) for each in (fit, again(fit)))
    assert torch.equal(one.log_p, other.log_p)


@pytest.mark.parametrize("installed", [True, False])
def test_what_cannot_be_pickled_stays_behind(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = of_lambda()
    if installed:
        fit.target.lock = threading.Lock()
    else:
        monkeypatch.setattr(sending, "_by_cloudpickle", lambda target: None)
    with pytest.warns(UserWarning, match="cannot be pickled .* stays behind"):
        copy = again(fit)
    assert torch.equal(copy.sample(3, seed=0), fit.sample(3, seed=0))
    with pytest.raises(FitError, match="without its target"):
        copy.weighted_draws(5)


def test_a_fit_without_a_target() -> None:
    fit = of_lambda()
    fit.target = None
    assert again(fit).target is None
