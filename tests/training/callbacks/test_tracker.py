"""A tracker records what its functions return, copied, at the steps asked for."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
import torch

from nfvi import NFVI, Tracker


def normal(z):
    return -0.5 * (z**2).sum(-1)


fit = partial(NFVI("scale-loc", seed=3).fit, normal, dim=2, steps=30, n_mc=16, restarts=3)


def test_records_every_few_steps():
    every = Tracker(every=7, elbo=lambda s: s.elbo, step=lambda s: s.step)
    result = fit(callbacks=[every])
    assert every.steps.tolist() == [7, 14, 21, 28] and len(every) == 4
    assert torch.equal(every["elbo"], result.history.elbo[every.steps - 1])
    assert torch.equal(every["step"], every.steps)
    assert every.names == ("elbo", "step")


def test_values_are_copies_without_graph():
    kept = []
    tracker = Tracker(loc=lambda s: s.parameters["loc_1"])
    fit(callbacks=[tracker, lambda s: kept.append(s.parameters["loc_1"].clone())])
    # The state gives views that change with every step; the records must not.
    assert torch.equal(tracker["loc"], torch.stack(kept))
    assert tracker["loc"].shape == (30, 3, 2) and not tracker["loc"].requires_grad


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1 / 3, torch.float64),
        (2, torch.int64),
        (True, torch.bool),
        (np.float32(0.5), torch.float32),
        (np.array([1 / 3, 2.0]), torch.float64),
    ],
)
def test_numbers_and_arrays(value, dtype):
    tracker = Tracker(every=10, x=lambda s: value)
    fit(callbacks=[tracker])
    assert tracker["x"].dtype is dtype
    assert (tracker["x"].numpy() == np.stack([value] * 3)).all()


def test_the_mean_of_the_fitted_distribution():
    stream = torch.Generator().manual_seed(0)
    tracker = Tracker(
        every=15,
        mean=lambda s: s.guide(1).sample(4000, generator=stream).mean(0),
        loc=lambda s: s.parameters["loc_1"][1],
    )
    fit(callbacks=[tracker])
    # The mean of scale-loc is loc, and its sds are below 2 here; 5 standard errors.
    assert (tracker["mean"] - tracker["loc"]).abs().max() < 5 * 2 / 4000**0.5


def test_the_best_guide_by_default():
    tracker = Tracker(
        every=30,
        best=lambda s: s.guide().flows[1].loc,
        every_loc=lambda s: s.parameters["loc_1"][s.best],
    )
    fit(callbacks=[tracker])
    assert torch.equal(tracker["best"], tracker["every_loc"])


def test_goes_on_with_refine_and_starts_afresh_with_another_fit():
    tracker = Tracker(every=10, elbo=lambda s: s.elbo)
    result = fit(callbacks=[tracker])
    result.refine(20, callbacks=[tracker])
    assert tracker.steps.tolist() == [10, 20, 30, 40, 50]
    assert torch.equal(tracker["elbo"], result.history.elbo[9::10])
    fit(callbacks=[tracker])
    assert tracker.steps.tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "needs functions"),
        ({"every": 0, "x": len}, ValueError, "every must be an integer"),
        ({"every": lambda s: s.elbo}, TypeError, "not a name"),
        ({"x": 3}, TypeError, "x=3 is not a function"),
        ({"mean": lambda: 0.0}, TypeError, "mean must take one argument, the state"),
        ({"x": lambda approx, losses, i: 0.0}, TypeError, "x must take one argument"),
    ],
)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        Tracker(**arguments)


def test_a_function_whose_signature_is_not_known_may_be_one():
    assert Tracker(t=time.time).names == ("t",)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda s: None, TypeError, "x returned NoneType"),
        (lambda s: "text", TypeError, "x returned str"),
        (
            lambda s: torch.zeros(s.step),
            ValueError,
            r"shape \(2,\) at step 2, and \(1,\) at step 1",
        ),
    ],
)
def test_wrong_values(function, error, words):
    with pytest.raises(error, match=words):
        fit(callbacks=[Tracker(x=function)])


def test_what_is_not_there():
    tracker = Tracker(every=100, elbo=lambda s: s.elbo)
    fit(callbacks=[tracker])
    with pytest.raises(KeyError, match="'loss' is not tracked; these are: elbo"):
        tracker["loss"]
    with pytest.raises(ValueError, match="no step was a multiple of every=100"):
        tracker["elbo"]
