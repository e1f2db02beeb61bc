"""NUTS in base space: the pulled-back density, and draws that are those of the target."""

from __future__ import annotations

import math

import pytest
import torch

from models import make_gaussian
from nfvi import NFVI, Fit, FitError
from nfvi.fit.neutra import BaseSpace
from nfvi.guides.guide import Guide

DIM = 3


@pytest.fixture(scope="module")
def fit() -> Fit:
    """A guide that is a little off: independent coordinates for a correlated Gaussian."""
    target = make_gaussian(DIM, condition=5.0, seed=1)
    return NFVI("scale-loc", seed=1).fit(target, steps=300, restarts=1, progress=False)


def test_the_density_in_base_space_is_the_pulled_back_one():
    """log p(f(z)) + log|det|: where the guide is p itself, the base density."""
    target = make_gaussian(DIM, condition=5.0, seed=1)
    guide = Guide("tril", DIM, jitter=0.3, generator=torch.Generator().manual_seed(0))
    z = torch.randn(20, DIM, generator=torch.Generator().manual_seed(1))
    x, ladj = guide.transform(z)
    torch.testing.assert_close(BaseSpace(guide, target).log_prob(z), target.log_prob(x) + ladj)
    assert torch.equal(BaseSpace(guide, target).constrain(z)["z"], x)
    own = make_gaussian(DIM, condition=5.0, seed=1)
    own.log_prob = guide.log_prob
    torch.testing.assert_close(BaseSpace(guide, own).log_prob(z), guide.base.log_prob(z))


def test_draws_through_a_guide_are_draws_of_the_target(fit):
    """Means and variances within 4.5 standard errors by the ESS: 12 checks, one in 10⁴ false."""
    run = fit.nuts(draws=400, warmup=200, chains=2, progress=False)
    assert run.draws.shape == (2, 400, DIM) and run.target is fit.target
    assert run.kernel == "NUTS through scale-loc"
    exact = fit.target.sample(200_000, generator=torch.Generator().manual_seed(0))
    draws = run.draws.flatten(0, 1).to(exact)
    for moment in (draws, draws.square()), (exact, exact.square()):
        assert all(m.isfinite().all() for m in moment)
    effective = float(run.ess_bulk["z"].min())
    assert effective > 100
    for power in (1, 2):
        error = exact.pow(power).std(0) / math.sqrt(effective)
        assert ((draws.pow(power).mean(0) - exact.pow(power).mean(0)).abs() < 4.5 * error).all()


def test_a_seed_repeats_the_draws(fit):
    first, second = (fit.nuts(draws=8, warmup=5, chains=2, seed=3) for _ in range(2))
    assert torch.equal(first.draws, second.draws)
    assert first.seed == 3


def test_chains_side_by_side_give_the_very_draws(fit):
    pytest.importorskip("joblib")
    options = {"draws": 8, "warmup": 5, "chains": 2, "seed": 3, "progress": False}
    assert torch.equal(fit.nuts(n_jobs=2, **options).draws, fit.nuts(**options).draws)


def test_wrong_arguments_are_refused(fit):
    for options in (
        {"chains": 0},
        {"seed": "a"},
        {"seed": -1},
        {"draws": 0},
        {"target_accept": 2.0},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            fit.nuts(**options)


def test_a_fit_without_its_target_cannot_sample_it(fit, tmp_path):
    fit.save(tmp_path / "fit.safetensors")
    with pytest.raises(FitError, match="without its target"):
        Fit.load(tmp_path / "fit.safetensors").nuts(draws=5)
