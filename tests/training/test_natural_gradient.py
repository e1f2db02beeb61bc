"""Natural gradients: the direction, what a step does, and fits that go by them."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Checkpoint, FitError, LogDensity, NaturalGradient, RowsTarget, Stop
from nfvi.training.natural_gradient import (
    LARGEST,
    LEAST_DAMPING,
    LESS_DAMPING,
    MORE_DAMPING,
    TRUST,
    ScoredDraws,
    natural_direction,
)
from nfvi.training.optimizers import keep_rows, move_rows

SHORT = {"steps": 12, "n_mc": 64, "restarts": 2, "progress": False}


def banana(z: Tensor) -> Tensor:
    return -0.5 * (z[..., 0] ** 2 + (z[..., 1] - z[..., 0] ** 2) ** 2) - math.log(2 * math.pi)


BANANA = LogDensity(banana, 2)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Quadratic:
    """r(x; θ) whose mean falls towards θ = goal, with scores that are those of a Gaussian mean."""

    def __init__(self, noise: Tensor, goal: Tensor) -> None:
        self.noise, self.goal, self.asked = noise, goal, 0

    def residuals(self, flat: Tensor) -> Tensor:
        self.asked += 1
        x = flat.unsqueeze(1) + self.noise
        return 0.5 * ((x - self.goal) ** 2).sum(-1) - 0.5 * (self.noise**2).sum(-1)

    def scores(self, flat: Tensor, restart: int) -> Tensor:
        return self.noise[restart].clone()


def centred(n: int, dim: int) -> Tensor:
    """Draws (2, n, dim) of mean 0 and covariance 1 exactly."""
    noise = draw(2, n, dim)
    noise = noise - noise.mean(1, keepdim=True)
    factor = torch.linalg.cholesky(noise.mT @ noise / n)
    return torch.linalg.solve_triangular(factor, noise.mT, upper=False).mT


class TestDirection:
    @pytest.mark.parametrize(("n", "parameters"), [(7, 30), (30, 7), (12, 12)])
    def test_solves_the_damped_system_of_the_fisher_matrix(self, n: int, parameters: int) -> None:
        scores, residuals, kept = draw(n, parameters), draw(n, seed=1), draw(parameters, seed=2)
        rows = (scores - scores.mean(0)) / n**0.5
        rest = (residuals - residuals.mean()) / n**0.5
        lam = 0.1 * rows.square().sum() / n
        fisher = rows.T @ rows
        damped = fisher + lam * torch.eye(parameters, dtype=torch.float64)
        expected = torch.linalg.solve(damped, rows.T @ (rest - rows @ kept)) + kept
        delta, moved = natural_direction(scores.clone(), residuals, 0.1, kept)
        torch.testing.assert_close(delta, expected)
        assert moved == pytest.approx(float(expected @ fisher @ expected))

    def test_scores_of_zero_move_nothing(self) -> None:
        for shape in ((5, 9), (9, 5)):
            delta, moved = natural_direction(
                torch.zeros(shape), torch.randn(shape[0]), 0.1, torch.zeros(shape[1])
            )
            assert moved == 0 and torch.equal(delta, torch.zeros(shape[1]))


class TestStep:
    def test_a_full_step_ends_at_the_mean_of_a_gaussian(self) -> None:
        # The natural gradient of KL(N(θ, 1) ‖ N(goal, 1)) is θ − goal.
        goal = torch.tensor([0.1, -0.05, 0.15], dtype=torch.float64)
        flat = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        NaturalGradient([flat], lr=1.0, damping=1e-9).step(Quadratic(centred(200, 3), goal))
        torch.testing.assert_close(flat.detach(), goal.expand(2, 3), atol=1e-6, rtol=0)

    def test_a_step_goes_no_further_than_the_trust_region(self) -> None:
        goal = torch.tensor([30.0, 0.0, 40.0], dtype=torch.float64)
        flat = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        NaturalGradient([flat], lr=1.0, damping=1e-9).step(Quadratic(centred(200, 3), goal))
        # KL(N(0, 1) ‖ N(θ, 1)) is |θ|²/2.
        torch.testing.assert_close(
            0.5 * flat.detach().square().sum(1), torch.full((2,), TRUST, dtype=torch.float64)
        )

    def test_a_step_that_made_things_worse_is_taken_back(self) -> None:
        flat = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        optimizer = NaturalGradient([flat], lr=0.5)
        noise = centred(200, 3)
        optimizer.step(Quadratic(noise, torch.full((3,), 0.1, dtype=torch.float64)))
        state = optimizer.state[flat]
        first, damping = flat.detach().clone(), state["damping"].clone()
        with torch.no_grad():
            flat[1] += 3.0
        optimizer.step(Quadratic(noise, torch.zeros(3, dtype=torch.float64)))
        # The first restart went on from its step, and the second from before it.
        torch.testing.assert_close(state["before"][0], first[0])
        assert torch.equal(state["before"][1], torch.zeros(3, dtype=torch.float64))
        ratio = (state["damping"] / damping).squeeze()
        assert ratio.tolist() == pytest.approx(
            [MORE_DAMPING if False else LESS_DAMPING, MORE_DAMPING]
        )

    def test_damping_has_a_floor(self) -> None:
        flat = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        optimizer = NaturalGradient([flat], lr=0.1, damping=LEAST_DAMPING)
        draws = Quadratic(centred(200, 3), torch.ones(3, dtype=torch.float64))
        for _ in range(3):
            optimizer.step(draws)
        assert optimizer.state[flat]["damping"].min() == LEAST_DAMPING

    def test_a_restart_without_finite_residuals_stays_where_it_is(self) -> None:
        class Broken(Quadratic):
            def residuals(self, flat: Tensor) -> Tensor:
                found = super().residuals(flat)
                found[0, 3] = math.inf
                return found

        flat = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        NaturalGradient([flat]).step(Broken(centred(50, 3), torch.ones(3, dtype=torch.float64)))
        assert torch.equal(flat[0], torch.zeros(3, dtype=torch.float64))
        assert bool((flat[1] != 0).all())


class TestFit:
    def test_scores_are_the_gradients_of_log_q_at_fixed_draws(self) -> None:
        fit = NFVI("planar*2-scale-loc", seed=1).fit(BANANA, **SHORT)
        ensemble = fit._trainer.ensemble
        noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
        guide = ensemble.guide(1)
        parameters = [p.requires_grad_(True) for p in guide.parameters()]
        x = guide(noise)[0].detach()
        scores = ensemble.scores(noise, 1)
        for i in range(5):
            one = torch.autograd.grad(
                guide.log_prob(x[i : i + 1], noise[i : i + 1]).sum(), parameters
            )
            torch.testing.assert_close(
                scores[i], torch.cat([g.flatten() for g in one]), atol=1e-4, rtol=1e-4
            )

    def test_what_a_step_remembers_is_put_back_and_kept_by_restart(self) -> None:
        flat = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        optimizer = NaturalGradient([flat])
        optimizer.state[flat] = {
            "velocity": torch.ones(3, 3),
            "before": torch.ones(3, 3),
            "damping": torch.tensor([[1.0], [2.0], [3.0]]),
        }
        restore = keep_rows(optimizer, flat)
        for value in optimizer.state[flat].values():
            value.mul_(10)
        restore(torch.tensor([True, False, True]))
        assert optimizer.state[flat]["damping"].flatten().tolist() == [10.0, 2.0, 30.0]
        new, rows = flat.detach()[[2, 0]].requires_grad_(), torch.tensor([2, 0])
        move_rows(optimizer, flat, new, rows)
        assert optimizer.state[new]["damping"].flatten().tolist() == [30.0, 10.0]

    def test_ends_nearer_than_adam_with_as_many_draws(self) -> None:
        # log Z = 0, so that −ELBO is the KL.
        how = {"restarts": 1, "anneal": False, "progress": False}
        ours = NFVI("planar*4-scale-loc", seed=1).fit(
            BANANA, optimizer=NaturalGradient, steps=40, n_mc=512, **how
        )
        adam = NFVI("planar*4-scale-loc", seed=1).fit(BANANA, steps=80, n_mc=256, **how)
        assert -ours.elbo < 0.5 * -adam.elbo

    def test_defaults_are_few_steps_of_many_draws(self) -> None:
        stop = [lambda state: Stop("seen")]
        fit = NFVI("loc").fit(BANANA, optimizer=NaturalGradient, callbacks=stop, progress=False)
        assert (fit.settings["n_mc"], len(fit.restarts)) == (512, 2)
        assert fit._trainer.schedule.steps == 200
        assert fit._trainer.peaks == [0.5]
        assert fit.settings["optimizer"] == "NaturalGradient"

    def test_same_seed_same_fit_and_a_resumed_one_to_the_last_bit(self, tmp_path: Path) -> None:
        path = tmp_path / "fit.ckpt"
        whole, again = (
            NFVI("planar*2", seed=3).fit(BANANA, optimizer=NaturalGradient, **SHORT)
            for _ in range(2)
        )
        stop = [Checkpoint(path, every=1), lambda s: Stop("half") if s.step == 5 else None]
        NFVI("planar*2", seed=3).fit(BANANA, optimizer=NaturalGradient, callbacks=stop, **SHORT)
        resumed = NFVI.resume(path)
        gone_on = resumed.fit(BANANA, optimizer=NaturalGradient, progress=False)
        gone_on.refine(7, progress=False)
        for other in (again, gone_on):
            assert torch.equal(whole.history.elbo, other.history.elbo)
            for p, q in zip(whole.guide.parameters(), other.guide.parameters(), strict=True):
                assert torch.equal(p, q)

    def test_restarts_do_not_depend_on_each_other(self) -> None:
        trainer = NFVI("planar*2", seed=3).fit(BANANA, optimizer=NaturalGradient, **SHORT)._trainer
        alone = copy.deepcopy(trainer.optimizer.state[trainer.ensemble.flat])
        noise = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(1))
        flat = trainer.ensemble.flat.detach().clone().requires_grad_()
        beta = torch.ones(2)

        def stepped(rows: list[int]) -> Tensor:
            leaf = flat.detach()[rows].clone().requires_grad_()
            optimizer = NaturalGradient([leaf])
            optimizer.state[leaf] = {name: value[rows] for name, value in alone.items()}
            ensemble = trainer.ensemble.at(leaf)
            ensemble.fixed = {name: value[rows] for name, value in ensemble.fixed.items()}
            optimizer.step(ScoredDraws(ensemble, trainer.objective, noise[rows], beta[rows]))
            return leaf.detach()

        both = stepped([0, 1])
        torch.testing.assert_close(both[:1], stepped([0]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both[1:], stepped([1]), atol=1e-5, rtol=1e-4)

    def test_goes_on_from_a_fit_by_adam(self) -> None:
        first = NFVI("planar*4-scale-loc", seed=1).fit(
            BANANA, steps=200, restarts=1, progress=False
        )
        fit = NFVI("planar*4-scale-loc", seed=1).fit(
            BANANA, init=first, optimizer=NaturalGradient, steps=15, n_mc=512, progress=False
        )
        assert fit.elbo > first.elbo + 0.02

    def test_refine_after_loading_goes_on_by_adam(self, tmp_path: Path) -> None:
        fit = NFVI("planar*2", seed=3).fit(BANANA, optimizer=NaturalGradient, **SHORT)
        fit.save(tmp_path / "fit.nfvi")
        loaded = type(fit).load(tmp_path / "fit.nfvi", target=BANANA)
        loaded.refine(5, progress=False)
        assert loaded.settings["optimizer"] == "Adam"
        # A new cycle has a peak of 0.3 of Adam's rate, and not of that of natural gradients.
        assert float(loaded.history.lr[-5:].max()) < 0.05


class TestRefused:
    def test_data_and_rows(self) -> None:
        rows = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        with pytest.raises(ValueError, match="is for fits to a log-density"):
            NFVI("scale-loc").fit_data(rows, optimizer=NaturalGradient, epochs=1, progress=False)
        target = RowsTarget(
            lambda z: -0.5 * (z**2).sum(-1),
            lambda z, x: -0.5 * ((x - z) ** 2).sum(-1),
            rows,
            dim=2,
            batch_size=8,
        )
        with pytest.raises(ValueError, match="sees rows of data"):
            NFVI("scale-loc").fit(target, optimizer=NaturalGradient, **SHORT)

    def test_scores_that_would_not_fit_into_memory(self) -> None:
        wide = LogDensity(lambda z: -0.5 * (z**2).sum(-1), 2_000)
        least = LARGEST // 4_000
        with pytest.raises(ValueError, match=rf"n_mc is 40,000: give n_mc={least} or less"):
            NFVI("scale-loc").fit(wide, optimizer=NaturalGradient, steps=2, n_mc=40_000)

    def test_a_number_of_draws_that_grows(self) -> None:
        with pytest.raises(ValueError, match='n_mc="auto" beside optimizer=NaturalGradient'):
            NFVI("loc").fit(BANANA, optimizer=NaturalGradient, n_mc="auto", progress=False)

    @pytest.mark.parametrize(
        ("argument", "wrong"),
        [
            ("lr", 0.0),
            ("damping", -1.0),
            ("momentum", 1.0),
            ("momentum", -0.1),
            ("lr", math.nan),
            ("momentum", "x"),
        ],
    )
    def test_arguments_out_of_their_range(self, argument: str, wrong: object) -> None:
        with pytest.raises(ValueError, match=argument):
            NaturalGradient([torch.zeros(1, 2, requires_grad=True)], **{argument: wrong})

    def test_a_target_that_turns_bad_ends_the_fit_with_the_last_good_guide(self) -> None:
        calls = [0]

        def late(z: Tensor) -> Tensor:
            calls[0] += 1
            return banana(z) * (math.nan if calls[0] > 40 else 1)

        target = LogDensity(late, 2)
        with pytest.raises(FitError) as raised:
            NFVI("loc", seed=1).fit(
                target, optimizer=NaturalGradient, compile=False, **{**SHORT, "steps": 300}
            )
        assert raised.value.guide.dim == 2
