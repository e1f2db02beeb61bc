"""With and without graphs: the same climb, search and verification, to the last bit."""

from __future__ import annotations

import sys

import pyro
import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Budget, Fit
from nfvi.targets import graph_scope


def schools(y: Tensor) -> None:
    scale = pyro.sample("scale", pyro.distributions.HalfNormal(5.0))
    with pyro.plate("schools", len(y)):
        effect = pyro.sample("effect", pyro.distributions.Normal(0.0, scale))
        pyro.sample("y", pyro.distributions.Normal(effect, 10.0), obs=y)


@pytest.fixture(scope="module")
def fits() -> list[Fit]:
    """Without, and with as many graphs as can be made."""
    data, found = torch.tensor([28.0, 8.0, -3.0]), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_scope, "CALLS", 4)
        patch.setattr("nfvi.search.search.WORK", 1e6)
        patch.setattr("nfvi.search.search.FEWEST_DRAWS", 1_000)
        # By the module: the package hands on a function of the same name.
        patch.setattr(sys.modules["nfvi.starts.explore"], "ROUNDS", 1)
        for compile in (False, "trace"):
            fit = NFVI("auto", seed=1).fit(schools, data, compile=compile, budget=Budget(steps=5))
            fit.search(draws=2_000, starts=64)
            fit.verify(chains=100)
            found.append(fit)
    return found


def test_the_same_fit(fits) -> None:
    plain, traced = fits
    assert [rung.elbo for rung in plain.path] == [rung.elbo for rung in traced.path]
    assert plain.path.gradient_evaluations == traced.path.gradient_evaluations
    draws = [fit.guide.sample(100, generator=torch.Generator().manual_seed(0)) for fit in fits]
    assert torch.equal(*draws)


def test_the_same_search_and_verification(fits) -> None:
    plain, traced = fits
    assert str(plain.missed) == str(traced.missed)
    assert plain.verification == traced.verification


def test_what_is_told(fits) -> None:
    assert [fit.settings["scores"] for fit in fits] == ["eager: compile=False", "traced"]
    assert [fit.settings["compile"] for fit in fits] == [False, "trace"]
