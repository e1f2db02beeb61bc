"""Tests of steps whose draws are taken piece by piece."""

import pytest
import torch

from nfvi import NFVI
from nfvi.guides import Guide
from nfvi.targets import LogDensity
from nfvi.training import Ensemble
from nfvi.training import pieces as pieces_of_a_step
from nfvi.training.group_gradients import by_group
from nfvi.training.objectives import ReverseKL
from nfvi.training.pieces import LateNoise, accumulated
from nfvi.utils import pieces as limits

TARGET = LogDensity(lambda z: -0.5 * (z - 1).square().sum(-1) - z[:, 0].abs(), 3, name="kink")


def ensemble(restarts: int, formula: str = "planar*3-scale-loc") -> Ensemble:
    start = torch.Generator().manual_seed(1)
    guides = [Guide(formula, 3, dtype=torch.float64, generator=start) for _ in range(restarts)]
    return Ensemble(guides)


def noise(restarts: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(restarts, n, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("gradient", ["path", "total"])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_pieces_give_the_terms_and_the_gradients_of_one_batch(restarts, gradient, size):
    some, draws = ensemble(restarts), noise(restarts, 30)
    objective, beta = ReverseKL(TARGET, 30, gradient), torch.linspace(0.2, 1, restarts).double()
    terms, elbo = objective(some, draws, beta)
    groups = by_group(terms, some.flat, 4)
    (whole,) = torch.autograd.grad(terms.mean(1).sum(), some.flat)
    found, found_elbo, found_groups = accumulated(
        lambda piece: objective(some, piece, beta), draws.split(size, 1), some.flat, 4
    )
    close = {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(found, terms.detach(), **close)
    torch.testing.assert_close(found_elbo, elbo, **close)
    torch.testing.assert_close(some.flat.grad, whole, **close)
    torch.testing.assert_close(found_groups, groups, **close)


def test_a_step_within_the_bound_is_one_piece():
    some, draws = ensemble(4), noise(4, 256)
    (piece,) = ReverseKL(TARGET, 256).pieces(some, draws)
    assert piece is draws


def test_the_numbers_that_flows_keep_bound_a_piece(monkeypatch):
    few, many = ensemble(2), ensemble(2, "planar*30-scale-loc")
    monkeypatch.setattr(limits, "KEPT", 2**14)
    objective, draws = ReverseKL(TARGET, 300), noise(2, 300)
    lengths = [[p.shape[1] for p in objective.pieces(e, draws)] for e in (few, many)]
    assert sum(lengths[0]) == sum(lengths[1]) == 300
    assert 300 > max(lengths[0]) > max(lengths[1])


def test_draws_beyond_memory_are_made_piece_by_piece_and_are_the_same_again(monkeypatch):
    monkeypatch.setattr(limits, "HELD", 1_000)
    monkeypatch.setattr(limits, "KEPT", 2**14)
    some, objective = ensemble(2), ReverseKL(TARGET, 300)
    batch = objective.draw(some, 0, torch.Generator().manual_seed(0))
    assert isinstance(batch, LateNoise)
    once, again = torch.cat(list(batch), 1), torch.cat(list(batch), 1)
    assert torch.equal(once, again) and once.shape == (2, 300, 3)
    assert len(once.reshape(-1).unique()) == once.numel()
    other = objective.draw(some, 1, torch.Generator().manual_seed(1))
    assert not torch.equal(torch.cat(list(other), 1), once)


# A line search takes the restart alone, and planar layers too far.
@pytest.mark.parametrize(
    ("formula", "optimizer"), [("planar*2-scale-loc", None), ("scale-loc", torch.optim.LBFGS)]
)
def test_a_fit_in_pieces_is_the_fit_in_one_piece(monkeypatch, formula, optimizer):
    def fitted() -> torch.Tensor:
        fit = NFVI(formula, dtype=torch.float64, seed=0).fit(
            TARGET, steps=12, n_mc=64, optimizer=optimizer, draws="iid"
        )
        return torch.cat([p.reshape(-1) for p in fit.guide.parameters()])

    whole, counted = fitted(), []
    monkeypatch.setattr(limits, "KEPT", 2**10)
    monkeypatch.setattr(
        "nfvi.training.loop.accumulated",
        lambda *args, **rest: counted.append(1) or pieces_of_a_step.accumulated(*args, **rest),
    )
    torch.testing.assert_close(fitted(), whole, rtol=1e-6, atol=1e-8)
    assert len(counted) >= 12


def test_a_fit_in_pieces_says_why_it_is_not_traced(monkeypatch):
    monkeypatch.setattr(limits, "KEPT", 2**14)
    fit = NFVI("planar*3", seed=0).fit(TARGET, steps=300, n_mc=300, restarts=2, progress=False)
    assert fit.settings["evaluation"] == "eager: a step goes in pieces, to fit into memory"
