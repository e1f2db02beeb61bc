"""Masks are refused wherever numbers are taken, with the rows that have them, and never ignored."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.masked import masked_tensor
from torch.utils.data import DataLoader

from nfvi import NFVI, Guide, MixtureGuide, PyroTarget, TargetError, nuts
from nfvi.utils import check_unmasked

X = np.random.default_rng(0).normal(size=(40, 2))
HOLES = np.ma.masked_array(X, np.zeros(X.shape, bool))
HOLES[[3, 5], 1] = np.ma.masked
WEIGHTS = np.ma.masked_array(np.ones(40), np.arange(40) == 7)
SAID = "has 2 of 40 rows with a masked cell, the first ones 3, 5,"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (HOLES, rf"v {SAID}.*x\[~np.ma.getmaskarray\(x\).any\(axis=1\)\]"),
        (list(HOLES), SAID),
        (WEIGHTS, r"v has 1 of 40 rows with a masked cell, the first ones 7.*getmaskarray\(x\)\]"),
        (np.ma.masked, "v is a masked value"),
        ([0.5, np.ma.masked], "v has 1 of 2 rows with a masked cell, the first ones 1"),
        ({"data": {"x": HOLES}}, rf"v\['data'\]\['x'\] {SAID}"),
        (np.ma.masked_less(np.ones(9), 2), r"9 of 9 rows.* 0, 1, 2, 3, 4, …"),
    ],
)
def test_what_is_masked_is_said(values, said):
    with pytest.raises(ValueError, match=said):
        check_unmasked("v", values)


@pytest.mark.filterwarnings("ignore:.*MaskedTensors is in prototype")
def test_masked_tensors_are_refused():
    mask = torch.from_numpy(~np.ma.getmaskarray(HOLES))
    with pytest.raises(ValueError, match=SAID):
        NFVI("loc").fit_data(masked_tensor(torch.from_numpy(X), mask))


def test_what_hides_nothing_is_taken():
    for values in (X, np.ma.masked_array(X), [1, 2], "text", None, torch.ones(3), {"a": 1}):
        check_unmasked("v", values)
    plain = NFVI("loc", seed=0).fit_data(X, epochs=2)
    assert NFVI("loc", seed=0).fit_data(np.ma.masked_array(X), epochs=2).quality == plain.quality


def test_no_argument_of_a_fit_to_data_loses_its_mask():
    fits = NFVI("loc", seed=0)
    context = HOLES[:, 1]
    for name, x, options in [
        ("x", HOLES, {}),
        ("x", DataLoader(HOLES), {}),
        ("context", X, {"context": context}),
        ("validation", X, {"validation": HOLES}),
    ]:
        with pytest.raises(ValueError, match=f"{name} {SAID}"):
            fits.fit_data(x, **options)
    with pytest.raises(ValueError, match="weights has 1 of 40 rows with a masked cell"):
        fits.fit_data(X, weights=WEIGHTS)


def test_no_question_to_a_density_loses_its_mask():
    fit = NFVI("loc", seed=0).fit_data(X, epochs=1)
    given = NFVI("loc", seed=0).fit_data(X[:, 0], context=X[:, 1], epochs=1)
    for ask in (fit.score_samples, fit.score, fit.rows):
        with pytest.raises(ValueError, match=f"x {SAID}"):
            ask(HOLES)
    for ask in (
        lambda: given.score_samples(X[:, 0], HOLES[:, 1]),
        lambda: given.sample(2, HOLES[:, 1]),
    ):
        with pytest.raises(ValueError, match=f"context {SAID}"):
            ask()


def test_scikit_learn_loses_no_mask():
    pytest.importorskip("sklearn")
    from nfvi import FlowDensity

    density = FlowDensity("loc", epochs=1, random_state=0)
    with pytest.raises(ValueError, match=f"X {SAID}"):
        density.fit(HOLES)
    with pytest.raises(ValueError, match="weights has 1 of 40 rows"):
        density.fit(X, sample_weight=WEIGHTS)
    with pytest.raises(ValueError, match=f"X {SAID}"):
        density.fit(X).score_samples(HOLES)


def test_targets_starts_and_weights_of_mixtures():
    def model(y, *, c=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0).expand([len(y)]).to_event(1), obs=torch.as_tensor(y))

    with pytest.raises(TargetError, match=r"'model': argument 0 of the model has 1 of 40 rows"):
        PyroTarget(model, WEIGHTS)
    with pytest.raises(TargetError, match=r"'model': argument 'c' of the model has 1 of 40"):
        PyroTarget(model, torch.ones(3), c=WEIGHTS)
    target, start = lambda z: -(z**2).sum(-1), np.ma.masked_array([0.0, 1.0], [False, True])
    with pytest.raises(ValueError, match="init has 1 of 2 rows with a masked cell"):
        NFVI("loc").fit(target, dim=2, init=start, steps=1)
    with pytest.raises(ValueError, match="init has 1 of 2 rows with a masked cell"):
        nuts(target, dim=2, init=start, draws=8)
    guides = [Guide("loc", 2), Guide("loc", 2)]
    with pytest.raises(ValueError, match="weights has 1 of 2 rows with a masked cell"):
        MixtureGuide(guides, start)


def test_none_and_na_are_missing_values():
    pandas = pytest.importorskip("pandas")
    holes = X.astype(object)
    holes[[3, 5], 1] = None
    table = pandas.DataFrame(X, columns=["a", "b"]).astype("Float64")
    table.loc[[3, 5], "b"] = pandas.NA
    whole = pandas.DataFrame(X, columns=["a", "b"]).astype("Float64")
    fit = NFVI("loc", seed=0).fit_data(whole, epochs=1)
    assert np.array_equal(fit.score_samples(whole), fit.score_samples(X))
    for values, how in ((holes, r"x\[np.isfinite\(x\)"), (table, r"x\.dropna\(\)")):
        with pytest.raises(ValueError, match=rf"2 of 40 rows with NaN or inf.* 3, 5: .*{how}"):
            NFVI("loc").fit_data(values)
    given = NFVI("loc", seed=0).fit_data(X[:, 0], context=X[:, 1], epochs=1)
    with pytest.raises(ValueError, match="context has NaN or inf; missing values"):
        given.score_samples(X[:, 0], table["b"])
