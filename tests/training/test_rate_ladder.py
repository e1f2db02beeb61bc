"""The ladder of learning rates."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor, optim

from models import make_gaussian
from nfvi import NFVI, Checkpoint, Guide, as_target
from nfvi.training.rate_ladder import FACTORS, N_MC, STEPS, RateSearch, _choose, find_learning_rate

SCALES = torch.logspace(-2, 0, 10)


def stiff(z: Tensor) -> Tensor:
    """A Gaussian of condition number 10⁴."""
    return -0.5 * ((z / SCALES) ** 2).sum(-1)


TARGET = as_target(stiff, dim=10)


def search(formula: str = "scale-loc", target: Any = TARGET, **options: Any) -> RateSearch:
    guide = Guide(formula, target.dim, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return find_learning_rate(guide, target, **{"generator": generator, **options})


class TestSearch:
    def test_a_rate_ten_times_too_large_is_refused(self) -> None:
        # With a network, 2e-2 leaves the target's narrow direction at once: its ELBO is thousands
        # of nats down, while 5e-3, the default, is fine.
        found = search("realnvp*2", around=0.05)
        assert found.lr <= 0.0125 < found.rates[-2]

    def test_a_rate_ten_times_too_small_is_refused(self) -> None:
        found = search(around=0.002)
        assert found.lr == found.rates[-1]

    def test_what_it_reports(self) -> None:
        found = search()
        assert found.rates == pytest.approx([0.02 * factor for factor in FACTORS])
        assert found.gradient_evaluations == len(FACTORS) * STEPS * N_MC
        assert max(found.elbos) > found.start and found.lr in found.rates

    def test_one_generator_is_one_answer(self) -> None:
        assert search() == search()

    def test_the_start_is_left_as_it_is(self) -> None:
        guide = Guide("scale-loc", 10, generator=torch.Generator().manual_seed(0))
        guide.requires_grad_(False)
        before = {name: value.clone() for name, value in guide.state_dict().items()}
        find_learning_rate(guide, TARGET, generator=torch.Generator().manual_seed(1), steps=5)
        assert all(torch.equal(before[n], v) for n, v in guide.state_dict().items())
        assert not any(p.requires_grad for p in guide.parameters())

    def test_a_target_that_is_nowhere_finite(self) -> None:
        nowhere = as_target(lambda z: -(z**2).sum(-1) * (torch.nan if len(z) > 9 else 1), dim=2)
        found = search(target=nowhere)
        assert found.lr == found.rates[0] and all(map(math.isnan, found.elbos))

    def test_an_optimizer_class(self) -> None:
        found = search(optimizer=optim.RMSprop)
        assert found.rates[3] == pytest.approx(0.01)
        with pytest.raises(ValueError, match='lr="auto" needs Adam'):
            search(optimizer=optim.LBFGS)


class TestChoice:
    """Rows of terms are log p − log q of the same draws at rising rates."""

    def choose(self, shifts: list[float], start: float = -1.0, scale: float = 0.0) -> int:
        noise = torch.randn(len(shifts), 400, generator=torch.Generator().manual_seed(0)).double()
        noise = noise - noise.mean(1, keepdim=True)
        terms = torch.tensor(shifts).double().unsqueeze(1) + scale * noise
        return _choose(terms, torch.full((400,), start).double(), torch.ones(len(shifts)) > 0)[0]

    def test_the_best_is_taken(self) -> None:
        assert self.choose([0.0, 1.0, 0.5]) == 1

    def test_the_smaller_within_the_noise(self) -> None:
        # The paired difference has standard error 3 √2 / √400 = 0.21.
        assert self.choose([0.0, 0.7, 1.0], scale=3.0) == 1
        assert self.choose([0.0, 0.7, 1.0], scale=0.1) == 2

    def test_the_smaller_that_gained_almost_as_much(self) -> None:
        # A tenth of the gain where that is less than 0.1 nats, and 0.1 nats where it is more.
        assert self.choose([-0.05, 0.0], start=-0.6) == 0
        assert self.choose([-0.07, 0.0], start=-0.6) == 1
        assert self.choose([-0.09, 0.0], start=-50.0) == 0
        assert self.choose([-0.11, 0.0], start=-50.0) == 1

    def test_what_is_not_finite_or_falls_loses(self) -> None:
        assert self.choose([math.nan, 0.5, math.inf]) == 1
        assert self.choose([-5.0, -math.inf, -0.5]) == 2
        assert self.choose([-5.0, -3.0, -2.0]) == 0


class TestFit:
    def options(self, **others: Any) -> dict[str, Any]:
        return {"steps": 30, "n_mc": 16, "restarts": 2, "progress": False, **others}

    def test_the_rate_found_is_used_and_kept(self) -> None:
        target = make_gaussian(2)
        fit = NFVI("scale-loc", seed=1).fit(target, lr="auto", **self.options())
        rate = fit.settings["lr"]
        assert fit.history.lr.max().item() == pytest.approx(rate, rel=0.02)
        assert any(rate == pytest.approx(0.02 * factor) for factor in FACTORS)
        assert fit.gradient_evaluations == 30 * 16 * 2 + len(FACTORS) * STEPS * N_MC
        again = NFVI("scale-loc", seed=1).fit(target, lr=rate, **self.options())
        assert torch.equal(again.history.elbo, fit.history.elbo)

    def test_resumed(self, tmp_path: Any) -> None:
        def cut(state: Any) -> None:
            if state.step == 25:
                raise OSError("power cut")

        file, options = tmp_path / "fit.ckpt", self.options(lr="auto")
        whole = NFVI("scale-loc", seed=1).fit(TARGET, **options)
        with pytest.raises(OSError, match="power cut"):
            NFVI("scale-loc", seed=1).fit(TARGET, callbacks=[Checkpoint(file, 20), cut], **options)
        resumed = NFVI.resume(file).fit(TARGET, progress=False)
        assert torch.equal(whole.history.elbo, resumed.history.elbo)
        assert whole.gradient_evaluations == resumed.gradient_evaluations
        assert whole.settings == resumed.settings

    @pytest.mark.process_wide
    def test_ctrl_c_before_the_first_step(self) -> None:
        calls = []

        def press(z: Tensor) -> Tensor:
            calls.append(1)
            if len(calls) == 20:
                os.kill(os.getpid(), signal.SIGINT)
            return stiff(z)

        with pytest.raises(KeyboardInterrupt):
            NFVI("scale-loc", seed=1).fit(press, dim=10, lr="auto", **self.options())

    @pytest.mark.parametrize("lr", ["fast", True])
    def test_wrong_words(self, lr: Any) -> None:
        with pytest.raises(ValueError, match='lr must be a positive number or "auto"'):
            NFVI("scale-loc").fit(TARGET, lr=lr, **self.options())
