"""Fits to many rows: unbiased steps, less noise by anchors, and fits that go on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Budget, Checkpoint, Fit, RowsTarget, Stop, TargetError
from nfvi.guides.guide import Guide
from nfvi.targets import minibatch
from nfvi.training import Ensemble
from nfvi.training.minibatch import Anchors, MinibatchKL, reverse_kl
from nfvi.training.objectives import ReverseKL
from nfvi.training.step import TracedStep
from nfvi.utils import pieces

DTYPE = torch.float64
N, P, B = 2_000, 3, 50
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, P, generator=GENERATOR, dtype=DTYPE)
W = torch.tensor([1.0, -2.0, 0.5], dtype=DTYPE)
Y = (X @ W).sigmoid().bernoulli(generator=GENERATOR)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Looks at all rows from 1 000 draws, which is quick."""
    monkeypatch.setattr(minibatch, "LOOK", 1_000 * N)


def log_prior(w: Tensor) -> Tensor:
    return -0.5 * (w**2).sum(-1)


def log_likelihood(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid((2 * y - 1) * (x @ w))


def gaussian(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return -0.5 * (y - x @ w) ** 2


def made(likelihood=log_likelihood, batch_size: int = B) -> RowsTarget:
    target = RowsTarget(log_prior, likelihood, (X, Y), dim=P, batch_size=batch_size)
    target.check()
    return target


def near(size: int = 1, sd: float = 0.03) -> Ensemble:
    """Guides about as wide as the posterior, around the truth."""
    guides = []
    for i in range(size):
        guide = Guide("scale-loc", P, dtype=DTYPE, generator=torch.Generator().manual_seed(i))
        with torch.no_grad():
            guide.flows[0].rho.fill_(sd).expm1_().log_()
            guide.flows[1].loc.copy_(W)
        guides.append(guide)
    return Ensemble(guides)


def terms(objective: MinibatchKL, ensemble: Ensemble, noise: Tensor, generator) -> Tensor:
    """Loss and gradient of one step in one row, at given base draws."""
    batch = replace(objective.draw(ensemble, 0, generator), noise=noise)
    beta = ensemble.flat.new_ones(ensemble.size)
    loss = objective(ensemble, batch, beta).loss.mean(1)
    (slope,) = torch.autograd.grad(loss.sum(), ensemble.flat)
    return torch.cat([loss.detach(), slope.flatten()])


def test_steps_are_unbiased_and_anchors_take_their_noise_off():
    target, ensemble = made(), near()
    objective = reverse_kl(target, 8)
    noise = ensemble.draw(8, torch.Generator().manual_seed(3))
    exact = ReverseKL(target, 8)(ensemble, noise, torch.ones(1, dtype=DTYPE)).loss.mean(1)
    (slope,) = torch.autograd.grad(exact.sum(), ensemble.flat)
    expected = torch.cat([exact.detach(), slope.flatten()])
    generator = torch.Generator().manual_seed(4)
    many = torch.stack([terms(objective, ensemble, noise, generator) for _ in range(400)])
    error = many.std(0) / len(many) ** 0.5
    # Five standard errors: a false alarm in 10⁶.
    assert bool(((many.mean(0) - expected).abs() < 5 * error).all())
    plain = replace(objective, anchors=Nowhere(target, 1))
    without = torch.stack([terms(plain, ensemble, noise, generator) for _ in range(400)])
    # Of the value most: its noise is of second order then.
    assert bool((many.std(0) < 0.2 * without.std(0)).all())
    assert float(many.std(0)[0]) < 0.01 * float(without.std(0)[0])


class Nowhere(Anchors):
    """Anchors at which the log-density is not finite, and which take nothing off then."""

    def at(self, ensemble):
        point, height, slope = super().at(ensemble)
        return point, height * torch.nan, slope


def test_anchors_follow_the_guides_and_those_that_are_kept():
    ensemble, target = near(2), made()
    anchors = Anchors(target, 1)
    point, height, slope = anchors.at(ensemble)
    assert bool(((point - W).abs() < 0.05).all())
    torch.testing.assert_close(height, target.log_prob(point))
    anchors.keep(torch.tensor([1]))
    assert torch.equal(anchors.at(ensemble)[0], point[1:])
    other = Anchors(target, 1)
    other.load_state_dict(anchors.state_dict(None), None)
    assert all(torch.equal(a, b) for a, b in zip(other.at(None), anchors.at(None), strict=True))
    assert slope.shape == (2, P) and Anchors(target, 1).state_dict(None) == {}


def test_a_traced_step_has_the_same_numbers():
    target, ensemble = made(), near(2)
    objective, step = reverse_kl(target, 8), TracedStep()
    for k in range(3):
        batch = objective.draw(ensemble, k, torch.Generator().manual_seed(k))
        beta = torch.tensor([0.3, 1.0], dtype=DTYPE)
        found = step(ensemble, objective, batch, beta, k)
        loss = objective(ensemble, batch, beta).loss
        (slope,) = torch.autograd.grad(loss.mean(1).sum(), ensemble.flat)
        assert step.text == "traced" and torch.equal(found.terms, loss)
        assert torch.equal(found.gradient, slope)


@pytest.mark.parametrize("late", [False, True])
def test_a_step_in_pieces_is_the_same_step(late, monkeypatch):
    fits = []
    for kept in (None, 3_000):
        if kept:
            monkeypatch.setattr(pieces, "KEPT", kept)
            monkeypatch.setattr(pieces, "HELD", 30 if late else pieces.HELD)
        fits.append(NFVI("scale-loc", seed=1).fit(made(), steps=3, n_mc=32, init="zeros"))
    whole, cut = fits
    assert "in pieces" in cut.settings["evaluation"]
    if not late:  # draws that are made late are others
        torch.testing.assert_close(whole.history.loss, cut.history.loss)


def posterior() -> tuple[Tensor, Tensor]:
    """Mean and covariance given the normal likelihood."""
    covariance = torch.linalg.inv(X.T @ X + torch.eye(P, dtype=DTYPE))
    return covariance @ X.T @ Y, covariance


def test_a_fit_finds_the_posterior_of_all_rows():
    mean, covariance = posterior()
    fit = NFVI("scale-loc", seed=1).fit(made(gaussian), steps=300)
    sd = covariance.diagonal().sqrt()
    found = fit.sample(20_000, seed=0)
    # 20 000 draws tell a mean to 0.007 sd and an sd to 0.5 %.
    assert bool(((found.mean(0) - mean).abs() < 0.04 * sd).all())
    assert bool(((found.std(0) / sd - 1).abs() < 0.03).all())
    assert abs(fit.elbo - fit.log_evidence) < 0.01 and fit.khat < 0.7
    assert (fit.settings["rows"], fit.settings["batch_size"]) == (N, B)
    assert (
        fit.settings["init"] in ("auto (laplace)", "auto (pathfinder)") and len(fit.restarts) == 1
    )
    text = str(fit)
    assert "300 steps of 64 draws and 50 of 2,000 rows" in text
    assert "gradients of the rows of a step, or at the start of all, in" in " ".join(text.split())
    assert "These numbers are of all 2,000 rows." in text and "good" in text


def test_from_zeros_a_fit_comes_to_the_same_place():
    mean, covariance = posterior()
    fit = NFVI("scale-loc", seed=1).fit(made(gaussian), steps=600, init="zeros", lr=0.05)
    sd = covariance.diagonal().sqrt()
    assert bool(((fit.sample(20_000, seed=0).mean(0) - mean).abs() < 0.2 * sd).all())


def test_a_resumed_fit_ends_bit_for_bit_where_it_would_have(tmp_path):
    path = tmp_path / "run.safetensors"
    run = partial(NFVI("scale-loc", seed=1).fit, made(), steps=300, restarts=2, prune=True, n_mc=8)

    def fail(state):
        if state.step == 275:
            raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        run(callbacks=[Checkpoint(path, every=270), fail])
    with pytest.raises(
        TargetError, match=r"batch_size=50.*has batch_size=40; resume with the same"
    ):
        NFVI.resume(path).fit(made(batch_size=40))
    whole, again = run(), NFVI.resume(path).fit(made())
    assert torch.equal(whole.history.loss, again.history.loss)
    for name, value in whole.guide.state_dict().items():
        assert torch.equal(value, again.guide.state_dict()[name])


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": "auto"},
        {"n_mc": "auto"},
        {"steps": "auto"},
        {"draws": "qmc"},
        {"combine": "mixture", "restarts": 2},
        {"anneal": "adaptive", "restarts": 2},
        {"optimizer": torch.optim.SGD, "lr": 1e-4},
    ],
)
def test_the_other_ways_to_fit_take_rows(arguments):
    steps = {} if "steps" in arguments else {"steps": 20}
    callbacks = [lambda state: Stop("enough") if state.step == 20 else None]
    fit = NFVI("scale-loc", seed=1).fit(made(), **arguments, **steps, callbacks=callbacks)
    assert fit.elbo > -1_300 and fit.steps == 20


def test_a_saved_fit_goes_on(tmp_path):
    fit = NFVI("scale-loc", seed=1).fit(made(), steps=100)
    fit.save(tmp_path / "fit.safetensors")
    loaded = Fit.load(tmp_path / "fit.safetensors", target=made())
    assert loaded.settings["rows"] == N
    assert loaded.refine(50).steps == 150 and loaded.elbo > fit.elbo - 0.1


def test_auto_climbs_on_all_rows_or_says_what_to_do():
    target = made(gaussian)
    fit = NFVI("auto", seed=1).fit(target, budget=Budget(evaluations=20_000))
    assert fit.khat < 0.7
    mean, covariance = posterior()
    found = fit.sample(20_000, seed=0)
    assert bool(((found.mean(0) - mean).abs() < 0.05 * covariance.diagonal().sqrt()).all())
    target.rows = 10**6
    with pytest.raises(ValueError, match="has 1,000,000 rows: name a formula"):
        NFVI("auto").fit(target)


def test_the_bar_says_how_many_rows_a_second(capsys):
    NFVI("scale-loc", seed=0).fit(made(), steps=20, progress=True)
    assert "rows/s=" in capsys.readouterr().err


def test_verify_takes_fewer_chains_where_rows_are_many():
    fit = NFVI("scale-loc", seed=1).fit(made(gaussian), steps=20)
    fit.target.rows = 10**6
    assert fit.verify(budget=0.01).chains == 200
