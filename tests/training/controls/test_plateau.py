"""Fits that end by themselves."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Checkpoint, Fit, LogDensity, Stop
from nfvi.training.controls.plateau import CAP, FLOOR, TOLERANCE, open_ended, predicted_gain
from nfvi.training.history import History

GAUSSIAN = LogDensity(
    lambda z: -0.5 * ((z - 1) ** 2).sum(-1), 4, log_normalizer=2 * math.log(2 * math.pi)
)


def fit(seed: int = 1, target: Any = GAUSSIAN, callbacks: tuple = (), **options: Any) -> Fit:
    arguments = {"steps": "auto", "n_mc": 32, "restarts": 2, "anneal": False, "progress": False}
    return NFVI("scale-loc", seed=seed).fit(target, callbacks=callbacks, **{**arguments, **options})


@pytest.fixture(scope="module")
def whole() -> Fit:
    """The fit that nothing cuts short."""
    return fit()


class Stub:
    """The part of a trainer that the prediction looks at."""

    def __init__(self, elbo: Tensor, se: float, beta: Tensor | None = None) -> None:
        self.history = History()
        for i, row in enumerate(elbo):
            one = torch.ones_like(row)
            self.history.append(
                0.01,
                loss=-row,
                elbo=row,
                elbo_se=se * one,
                grad_norm=one,
                beta=one if beta is None else beta[i] * one,
            )
        self.whole = lambda values, fill: values
        self.guard = type("Guard", (), {"alive": torch.ones(elbo.shape[1], dtype=torch.bool)})()


class TestPrediction:
    t = torch.arange(1, 1001, dtype=torch.float64).unsqueeze(1)

    def test_it_is_exact_for_a_logarithm(self) -> None:
        # Window means of log t differ from its value in the middle by about (w / c)² / 24 < 1 %.
        # The blocks' scatter in a curve that rises adds an error of the order of the gain / 10.
        gain = predicted_gain(Stub(self.t.log(), 0.0))
        assert 0.69 < gain < 0.9

    @pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
    def test_it_is_not_too_low_for_a_power_law(self, power: float) -> None:
        curve = -(self.t**-power)
        truth = 1000.0**-power - 2000.0**-power
        gain = predicted_gain(Stub(curve, 0.0))
        assert truth < gain < 5 * truth

    def test_the_noise_counts(self) -> None:
        flat = torch.zeros(1000, 1)
        # se of the difference of two means of 250 steps, times log 2 / log(7 / 5).
        assert predicted_gain(Stub(flat, 0.5)) == pytest.approx(
            0.5 * (2 / 250) ** 0.5 * 2.06, rel=0.01
        )

    def test_the_best_restart_decides(self) -> None:
        rising = torch.cat([-10 + self.t / 1000, torch.zeros(1000, 1)], 1)
        assert predicted_gain(Stub(rising, 0.0)) == 0
        assert predicted_gain(Stub(rising + torch.tensor([20.0, 0.0]), 0.0)) > 0.5

    def test_tempering_is_waited_for(self) -> None:
        beta = torch.ones(1000).index_fill(0, torch.arange(900), 0.5)
        assert predicted_gain(Stub(self.t.log(), 0.0, beta)) == torch.inf


class TestFit:
    def test_an_easy_target_is_left_early_and_well(self, whole: Fit) -> None:
        assert whole.stopped == "converged" and "converged" in str(whole)
        assert 1.5 * FLOOR <= whole.steps < 1_000
        assert whole.history.lr[-1] < 1e-5 < whole.history.lr.max()
        # The guide can be exact; draws of an exact guide all have the same ratio, so without noise.
        assert whole.elbo > 2 * math.log(2 * math.pi) - 0.01

    def test_a_fit_that_still_rises_goes_on(self) -> None:
        # 3 000 away at 0.02 a step: the ELBO rises throughout.
        far = lambda z: -((z - 3_000.0) ** 2).sum(-1) / 2e6  # noqa: E731
        stop = lambda state: Stop("seen") if state.step == 1000 else None  # noqa: E731
        assert fit(target=far, dim=2, callbacks=(stop,)).stopped == "seen"

    def test_the_cap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nfvi.inference.target.CAP", 400)
        found = fit()
        assert (found.steps, found.stopped) == (400, "steps")
        assert found.history.lr[-1] < 1e-5

    def test_the_same_seed_is_the_same_fit(self, whole: Fit) -> None:
        assert torch.equal(fit().history.elbo, whole.history.elbo)

    @pytest.mark.parametrize("at", [100, 440])
    def test_resumed_bit_for_bit(self, at: int, whole: Fit, tmp_path: Any) -> None:
        def cut(state: Any) -> None:
            if state.step == at + 5:
                raise OSError("power cut")

        file = tmp_path / "fit.ckpt"
        with pytest.raises(OSError, match="power cut"):
            fit(callbacks=(Checkpoint(file, every=at), cut))
        resumed = NFVI.resume(file).fit(GAUSSIAN, progress=False)
        assert torch.equal(resumed.history.elbo, whole.history.elbo)
        assert (resumed.stopped, resumed.settings) == (whole.stopped, whole.settings)

    @pytest.mark.process_wide
    def test_interrupted_and_refined_to_the_end(self, whole: Fit) -> None:
        def press(state: Any) -> None:
            if state.step == 70:
                os.kill(os.getpid(), signal.SIGINT)

        found = fit(callbacks=(press,))
        assert found.stopped == "interrupted"
        found.refine(CAP - 70)
        assert found.stopped == "converged"
        assert torch.equal(found.history.elbo, whole.history.elbo)

    def test_refined_past_the_end(self) -> None:
        found = fit()
        ended = found.steps
        found.refine(40)
        assert (found.steps, found.stopped) == (ended + 40, "steps")
        assert found.history.lr[ended:].max() > 0

    @pytest.mark.parametrize("steps", ["many", True])
    def test_wrong_words(self, steps: Any) -> None:
        with pytest.raises(ValueError, match="steps must be an integer"):
            fit(steps=steps)


def test_the_schedule_holds_and_then_decays() -> None:
    rate = open_ended(900)
    assert rate.steps == 900 and rate(100) == rate(600) == 1
    assert 0 < rate(899) < rate(750) < 1
    assert TOLERANCE == 0.01
