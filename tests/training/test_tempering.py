"""Tempering from the base to the target, at the pace of the draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import pot1
from nfvi import NFVI, Checkpoint, Fit
from nfvi.training.tempering import LEAST, PACE, AdaptiveTempering, _reach

LENGTH = 60


def fit(callbacks: tuple = (), target: Any = pot1, **options: Any) -> Fit:
    arguments = {"steps": 100, "n_mc": 32, "restarts": 3, "progress": False, "anneal": "adaptive"}
    return NFVI("planar*2-scale-loc", seed=1).fit(
        target, callbacks=callbacks, **{**arguments, **options}
    )


class TestReach:
    def test_weights_of_two_kinds(self) -> None:
        # A share a of draws with log ratio 0 and the rest far below: (Σ w)² / Σ w² → a n.
        ratio = torch.tensor([[0.0] * 4 + [-10.0] * 6]).double()
        reach = float(_reach(ratio))
        w = torch.exp(-10 * torch.tensor(reach)).item()
        assert (4 + 6 * w) ** 2 / (4 + 6 * w * w) / 10 == pytest.approx(0.5, abs=1e-4)

    def test_where_nothing_differs_it_goes_all_the_way(self) -> None:
        assert float(_reach(torch.zeros(1, 5).double())) == pytest.approx(2.0)

    def test_what_is_not_finite_has_no_weight(self) -> None:
        ratio = torch.tensor([[0.0, torch.nan, -torch.inf, 0.0]]).double()
        assert float(_reach(ratio)) == pytest.approx(2.0)
        nothing = torch.full((1, 4), torch.nan).double()
        assert bool(_reach(nothing).isfinite().all())


class TestSchedule:
    def course(self, spread: float) -> Tensor:
        """β at each step where log p − log q₀ of the draws has this standard deviation."""
        tempering = AdaptiveTempering((LENGTH, 0))
        ratio = spread * torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
        betas = []
        for step in range(LENGTH + 5):
            beta = tempering(step, torch.zeros((), dtype=torch.float64))
            betas.append(beta)
            elbo = ratio.double()
            tempering.observe(step, (1 - beta).unsqueeze(1) * ratio - elbo, elbo)
        return torch.stack(betas)

    @pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 1e3])
    def test_it_rises_to_one_within_its_length(self, spread: float) -> None:
        beta = self.course(spread)
        assert beta[0, 0] == 0.01 and bool((beta.diff(dim=0) >= 0).all())
        assert bool((beta[LENGTH:] == 1).all()) and bool((beta[:, 1] == 1).all())
        assert bool((beta[: int(LEAST * LENGTH), 0] < 1).all())

    def test_the_floor_and_the_cap_are_reached(self) -> None:
        arrived = [int((self.course(s)[:, 0] < 1).sum()) for s in (0.0, 1e3)]
        assert arrived[0] <= LEAST * LENGTH / PACE + 10 and arrived[1] == LENGTH

    def test_the_wider_the_weights_the_longer(self) -> None:
        arrived = [int((self.course(s)[:, 0] < 1).sum()) for s in (0.0, 1.2, 3.0)]
        assert arrived == sorted(arrived) and arrived[0] < arrived[2]


class TestFit:
    def test_one_beta_for_each_restart(self) -> None:
        history = fit(anneal=["adaptive", False, "adaptive"]).history
        assert bool((history.beta[:, 1] == 1).all()) and bool((history.beta[60:] == 1).all())
        assert bool((history.beta[:20, [0, 2]] < 1).all())
        assert not torch.equal(history.beta[:, 0], history.beta[:, 2])

    def test_the_loss_is_that_of_the_bridge(self) -> None:
        seen = []

        def look(state: Any) -> None:
            trainer = state._loop
            x, log_q = trainer.ensemble.push(torch.zeros(3, 1, 2))
            evaluation = trainer.objective(trainer.ensemble, torch.zeros(3, 1, 2), state.beta)
            log_p, log_0 = pot1.log_prob(x[:, 0]), trainer.ensemble.template.base.log_prob(x[:, 0])
            expected = log_q[:, 0] - state.beta * log_p - (1 - state.beta) * log_0
            torch.testing.assert_close(evaluation.loss[:, 0], expected)
            seen.append(state.step)

        fit((look,), steps=20)
        assert len(seen) == 20

    def test_a_base_that_is_the_target_stays(self) -> None:
        # q₀ = p: the bridge is p at every β, and a guide that is exact has nothing to learn.
        target = lambda z: -0.5 * (z * z).sum(-1)  # noqa: E731
        history = fit(target=target, dim=2, lr=1e-9).history
        assert history.loss.diff(dim=0).abs().max() < 3

    def test_a_placed_base_that_is_the_target_stays(self) -> None:
        # The same where init= has put the guide; from N(0, I) the bridge would begin 2 500 nats up.
        target = lambda z: -0.5 * ((z - 50) / 0.01).square().sum(-1)  # noqa: E731
        history = fit(target=target, dim=2, lr=1e-9, init="laplace").history
        assert history.loss.diff(dim=0).abs().max() < 3

    @pytest.mark.parametrize("options", [{}, {"prune": True, "steps": 120}])
    def test_resumed_bit_for_bit(self, options: dict[str, Any], tmp_path: Any) -> None:
        def cut(state: Any) -> None:
            if state.step == 37:
                raise OSError("power cut")

        file = tmp_path / "fit.ckpt"
        with pytest.raises(OSError, match="power cut"):
            fit((Checkpoint(file, every=33), cut), **options)
        resumed, whole = NFVI.resume(file).fit(pot1, progress=False), fit(**options)
        for name in ("beta", "elbo"):
            ours, theirs = getattr(whole.history, name), getattr(resumed.history, name)
            assert torch.equal(ours.nan_to_num(), theirs.nan_to_num()), name

    def test_both_modes_of_pot1_are_kept(self) -> None:
        found = NFVI("planar*8", seed=1).fit(
            pot1, steps=400, restarts=2, n_mc=128, anneal="adaptive", progress=False
        )
        right = float((found.sample(20_000, seed=0)[:, 0] > 0).float().mean())
        assert 0.4 < right < 0.6

    def test_wrong_words(self) -> None:
        with pytest.raises(ValueError, match='beside "adaptive", anneal takes False'):
            fit(anneal=["adaptive", 0.3, False])
        with pytest.raises(ValueError, match="anneal must be fractions"):
            fit(anneal="slowly")
