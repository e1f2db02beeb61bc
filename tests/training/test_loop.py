"""The loop: what it records, when it stops, what callbacks see, and that it can be continued."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Fit, Stop
from nfvi.training.history import History
from nfvi.training.schedule import LearningRate
from nfvi.training.state import Callback, TrainState

STEPS, N_MC, R = 20, 8, 2


def normal(z: Tensor) -> Tensor:
    return -0.5 * ((z - 1) ** 2).sum(-1)


def fit(callbacks: tuple = (), *, steps: int = STEPS, seed: int = 0, **options: object) -> Fit:
    arguments = {"restarts": R, "n_mc": N_MC, "progress": False, **options}
    nfvi = NFVI("scale-planar-loc", seed=seed)
    return nfvi.fit(normal, dim=2, steps=steps, callbacks=callbacks, **arguments)


def flat(found: Fit) -> Tensor:
    return found._trainer.ensemble.flat.detach().clone()


class TestHistory:
    def test_shapes(self) -> None:
        history = fit().history
        for name in ("loss", "elbo", "elbo_se", "grad_norm", "beta"):
            assert getattr(history, name).shape == (STEPS, R), name
        assert history.lr.shape == (STEPS,)
        assert len(history) == STEPS

    def test_loss_is_minus_the_elbo_once_beta_is_one(self) -> None:
        history = fit(anneal=[0.5, 0.0]).history
        one = history.beta == 1
        assert one[:, 1].all() and one[STEPS // 2 :, 0].all() and not one[: STEPS // 2, 0].any()
        torch.testing.assert_close(history.loss[one], -history.elbo[one])
        assert not torch.isclose(history.loss, -history.elbo)[~one].any()

    def test_elbo_se_is_that_of_the_step_s_draws(self) -> None:
        # Draws with ELBO terms of variance v have standard error √(v / n_mc).
        few, many = fit(n_mc=8).history.elbo_se[0], fit(n_mc=800).history.elbo_se[0]
        assert (few / many).tolist() == pytest.approx([10.0] * R, rel=0.7)

    def test_lr_follows_the_schedule(self) -> None:
        lr = fit(steps=100, lr=0.5).history.lr
        assert lr[9].item() == pytest.approx(0.5, rel=0.03)
        # Held for 60 of them; the middle of the decay is at 80.
        torch.testing.assert_close(lr[10:61], torch.full((51,), 0.5, dtype=lr.dtype))
        assert lr[80].item() == pytest.approx(0.25)
        assert lr[99].item() < 1e-3

    def test_select(self) -> None:
        history = fit().history
        chosen = history.select(1)
        assert torch.equal(chosen.elbo, history.elbo[:, 1:])
        assert torch.equal(chosen.lr, history.lr)

    def test_round_trip(self) -> None:
        history, other = fit().history, History()
        other.load_state_dict(history.state_dict())
        assert torch.equal(other.elbo, history.elbo) and torch.equal(other.lr, history.lr)
        assert len(other) == STEPS

    def test_nothing_yet(self) -> None:
        empty, other = History(), History()
        assert empty.elbo.numel() == 0 and len(empty) == 0
        other.load_state_dict(empty.state_dict())
        assert len(other) == 0

    def test_gradient_evaluations(self) -> None:
        assert fit().gradient_evaluations == STEPS * N_MC * R
        assert fit().refine(5).gradient_evaluations == (STEPS + 5) * N_MC * R


class Watch(Callback):
    """Writes down what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        self.calls: list[str] = []

    def open(self, state: TrainState) -> None:
        self.calls.append(f"open {state.step}")

    def __call__(self, state: TrainState) -> None:
        trainer = state._loop
        self.calls.append(f"step {state.step}")
        self.seen.append(
            (state.step, trainer.gradient.clone(), trainer.ensemble.flat.detach().clone())
        )

    def close(self, state: TrainState) -> None:
        self.calls.append(f"close {state.step}")


class TestCallbacks:
    def test_order(self) -> None:
        watch = Watch()
        fit((watch,), steps=3)
        assert watch.calls == ["open 0", "step 1", "step 2", "step 3", "close 3"]

    def test_the_gradients_shown_are_those_of_the_step(self) -> None:
        watch = Watch()
        start = flat(fit(steps=1, optimizer=torch.optim.SGD, lr=1e-30))
        found = fit((watch,), steps=5, optimizer=torch.optim.SGD, lr=0.1)
        before = start
        for step, gradient, after in watch.seen:
            rate = found.history.lr[step - 1].item()
            torch.testing.assert_close(after, before - rate * gradient, rtol=1e-5, atol=1e-7)
            before = after

    def test_named_values(self) -> None:
        names: list[set[str]] = []
        shapes: list[tuple[int, ...]] = []

        def look(state: TrainState) -> None:
            assert set(state.parameters) == set(state.gradients)
            names.append(set(state.parameters))
            shapes.append(tuple(state.gradients["u_1"].shape))
            assert state.loss.shape == state.elbo.shape == state.beta.shape == (R,)
            assert state.steps == 2 and 0 <= state.best < R

        fit((look,), steps=2)
        assert names == [{"rho_0", "u_1", "w_1", "b_1", "loc_2"}] * 2
        assert shapes == [(R, 2)] * 2

    def test_stop_ends_the_fit_with_its_reason(self) -> None:
        found = fit((lambda state: Stop("enough") if state.step == 7 else None,))
        assert (found.steps, found.stopped) == (7, "enough")
        assert "enough" in str(found)

    def test_all_callbacks_run_in_the_last_step(self) -> None:
        watch = Watch()
        fit((lambda state: Stop("enough"), watch))
        assert "step 1" in watch.calls and watch.calls[-1] == "close 1"

    def test_close_runs_after_an_error(self) -> None:
        watch = Watch()

        def fail(state: TrainState) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fit((watch, fail))
        assert watch.calls == ["open 0", "step 1", "close 1"]

    def test_watching_changes_nothing(self) -> None:
        class Groups(Watch):
            def groups(self, step: int) -> int:
                return 4

        assert torch.equal(flat(fit()), flat(fit((Watch(),))))
        assert torch.equal(flat(fit()), flat(fit((Groups(),))))


@pytest.mark.process_wide
class TestInterrupt:
    """Ctrl-C returns the fit so far, and refine continues bit for bit."""

    def interrupted(self, at: int) -> Fit:
        def press(state: TrainState) -> None:
            if state.step == at:
                os.kill(os.getpid(), signal.SIGINT)

        return fit((press,))

    def test_the_fit_so_far(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        found = self.interrupted(at=7)
        assert (found.steps, found.stopped) == (7, "interrupted")
        assert "refine" in str(found)
        assert signal.getsignal(signal.SIGINT) is before

    @pytest.mark.parametrize("at", [1, 7, STEPS - 1])
    def test_refining_makes_up_the_rest_exactly(self, at: int) -> None:
        whole, found = fit(), self.interrupted(at)
        found.sample(10)
        str(found)
        found.refine(STEPS - at)
        assert found.stopped == "steps"
        assert torch.equal(flat(found), flat(whole))
        assert torch.equal(found.history.elbo, whole.history.elbo)
        assert torch.equal(found.history.lr, whole.history.lr)
        assert found.restarts == whole.restarts
        assert found.elbo == whole.elbo

    def test_a_second_one_raises(self) -> None:
        def press_twice(state: TrainState) -> None:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                signal.getsignal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            fit((press_twice,))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_off_the_main_thread(self) -> None:
        results: list[Fit] = []
        thread = threading.Thread(target=lambda: results.append(fit()))
        thread.start()
        thread.join()
        assert torch.equal(flat(results[0]), flat(fit()))


class TestRefine:
    def test_more_steps_are_a_new_cycle(self) -> None:
        found = fit(steps=100, lr=0.1)
        found.refine(100)
        lr = found.history.lr
        assert len(lr) == 200
        assert lr[100:].max().item() == pytest.approx(0.1 * 0.3, rel=0.03)
        cycle = LearningRate.over(100)
        cosine = [0.03 * cycle(step) for step in range(100)]
        torch.testing.assert_close(lr[100:], torch.tensor(cosine, dtype=lr.dtype))

    def test_tempering_does_not_start_again(self) -> None:
        found = fit(anneal=True)
        found.refine(10)
        assert (found.history.beta[STEPS:] == 1).all()

    def test_refining_twice_is_not_refining_once(self) -> None:
        # Two cycles in place of one: both are legitimate, and the schedule says which it was.
        twice, once = fit(), fit()
        twice.refine(10).refine(10)
        once.refine(20)
        assert twice.steps == once.steps
        assert not torch.equal(twice.history.lr, once.history.lr)
        assert torch.equal(twice.history.lr[:STEPS], once.history.lr[:STEPS])


class Leap(torch.optim.SGD):
    """Leaves the range of floats in the first restart at its third step."""

    calls = 0

    def step(self, closure: object = None) -> None:
        super().step()
        self.calls += 1
        if self.calls == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][0][0].fill_(torch.inf)


def test_a_step_out_of_range_is_taken_back() -> None:
    made = fit(optimizer=Leap, lr=0.01, steps=10)
    plain = fit(optimizer=torch.optim.SGD, lr=0.01, steps=10)
    assert flat(made).isfinite().all()
    assert [r.skipped for r in made.restarts] == [1, 0]
    assert torch.equal(flat(made)[1], flat(plain)[1])


class PoisonedLeap(torch.optim.Adam):
    """Leaves the range of floats at its third step, and remembers that."""

    calls = 0

    def step(self, closure: object = None) -> None:
        super().step()
        self.calls += 1
        if self.calls == 3:
            with torch.no_grad():
                parameters = self.param_groups[0]["params"][0]
                parameters.fill_(torch.nan)
                self.state[parameters]["exp_avg"].fill_(torch.nan)


def test_what_an_optimiser_remembers_of_such_a_step_is_forgotten() -> None:
    made = fit(optimizer=PoisonedLeap, lr=0.01, steps=10, restarts=1)
    assert flat(made).isfinite().all()
    assert made.restarts[0].skipped == 1


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.LBFGS])
def test_a_parameter_inside_the_target_gets_no_gradient(optimizer: type) -> None:
    centre = torch.zeros(2, requires_grad=True)

    def around(z: Tensor) -> Tensor:
        return -0.5 * ((z - centre) ** 2).sum(-1)

    NFVI("scale-loc", seed=0).fit(
        around, dim=2, steps=3, restarts=1, n_mc=8, optimizer=optimizer, progress=False
    )
    assert centre.grad is None
