"""Where a fit to many rows starts by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, FitError, RowsTarget
from nfvi.guides.bases import Base, Normal
from nfvi.inference import init
from nfvi.targets import minibatch

Y = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def target(monkeypatch) -> RowsTarget:
    monkeypatch.setattr(minibatch, "LOOK", 200 * len(Y))

    def log_prior(z: Tensor) -> Tensor:
        return -0.5 * (z**2).sum(-1)

    def log_likelihood(z: Tensor, y: Tensor) -> Tensor:
        return -0.5 * (y - z.sum(-1)) ** 2

    return RowsTarget(log_prior, log_likelihood, Y, dim=2, batch_size=20)


def test_rows_start_at_the_mode(target):
    fit = NFVI("loc", seed=0).fit(target, steps=2)
    assert fit.settings["init"] in ("auto (laplace)", "auto (pathfinder)")
    assert fit.settings["placement"] == "full"
    # The sum of z is N(Σy / (n + ½), 1 / (n + ½)).
    total = fit.sample(2_000, seed=0).sum(1)
    sd = (len(Y) + 0.5) ** -0.5
    assert abs(float(total.mean()) - float(Y.sum()) / (len(Y) + 0.5)) < 0.5 * sd
    assert float(total.std()) == pytest.approx(sd, rel=0.2)


def test_where_there_is_no_such_start_it_is_the_base(target, monkeypatch):
    def none(*args):
        raise FitError("no Gaussian with a finite ELBO")

    monkeypatch.setattr(init, "find_start", none)
    assert NFVI("scale-loc", seed=0).fit(target, steps=2).settings["init"] == "zeros"
    with pytest.raises(FitError, match="no Gaussian"):
        NFVI("scale-loc", seed=0).fit(target, steps=2, init="laplace")


class NoSpread(Normal):
    sd = Base.sd


def test_nor_is_one_looked_for_that_costs_too_much_or_cannot_be_placed(target, monkeypatch):
    assert NFVI("loc", base=NoSpread(), seed=0).fit(target, steps=2).settings["init"] == "zeros"
    monkeypatch.setattr(init, "CURVATURE_LIMIT", 1)
    assert NFVI("loc", seed=0).fit(target, steps=2).settings["init"] == "zeros"


def test_the_start_has_no_word_of_its_own(target):
    with pytest.raises(ValueError, match="init= got 'uphill'; it takes 'auto', 'gaussian'"):
        NFVI("loc").fit(target, init="uphill")
