"""Draws of posteriors that are of no class of nfvi."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nfvi.utils.posterior import fresh_draws, label_of

TARGET = SimpleNamespace(dim=2, constrain=lambda z: {"z": z})


def normal(n, *, generator):
    return torch.randn(n, 2, generator=generator)


def own(n, *, seed):
    return normal(n, generator=torch.Generator().manual_seed(seed))


def test_draws_are_those_of_the_seed():
    alone = SimpleNamespace(target=TARGET, sample=own)
    assert torch.equal(fresh_draws(alone, 5, 3), own(5, seed=3))


def test_a_guide_comes_first():
    """Since what ``sample`` returns may be sites."""
    guide = SimpleNamespace(sample=normal, device=torch.device("cpu"))
    both = SimpleNamespace(target=TARGET, guide=guide, sample=lambda n, *, seed: {})
    assert torch.equal(fresh_draws(both, 5, 3), own(5, seed=3))


@pytest.mark.parametrize(
    ("posterior", "error", "message"),
    [
        (SimpleNamespace(target=TARGET), TypeError, "without sample"),
        (SimpleNamespace(sample=own), ValueError, "without a target"),
        (SimpleNamespace(sample=own, target=None), ValueError, "without a target"),
        (SimpleNamespace(sample=own, target=3), ValueError, "without a target"),
        (
            SimpleNamespace(sample=lambda n, *, seed: {}, target=TARGET),
            TypeError,
            "gives sites and there is no guide",
        ),
        (
            SimpleNamespace(sample=lambda n, *, seed: torch.zeros(n, 3), target=TARGET),
            ValueError,
            r"expected draws \(5, 2\), got \(5, 3\)",
        ),
    ],
)
def test_what_has_no_draws(posterior, error, message):
    with pytest.raises(error, match=message):
        fresh_draws(posterior, 5, 0)


def test_labels():
    assert label_of(SimpleNamespace(formula="loc")) == "loc"
    assert label_of(SimpleNamespace()) == "SimpleNamespace"
