"""The guard: clipping against the running length, skipping, counting, dropping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, optim

from nfvi import NFVI, FitError
from nfvi.targets import LogDensity
from nfvi.training.guard import CLIP, PATIENCE, Guard
from nfvi.training.optimizers import keep_rows


def rows(*lengths: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """One gradient (2,) of each length."""
    direction = torch.tensor([0.6, 0.8], dtype=dtype)
    return torch.tensor(lengths, dtype=dtype).unsqueeze(1) * direction


def fed(*lengths: float, times: int = 1, dtype: torch.dtype = torch.float64) -> Guard:
    """A guard that has seen gradients of these lengths, one a restart."""
    guard = Guard(rows(*lengths, dtype=dtype))
    for _ in range(times):
        guard(torch.zeros(len(lengths), dtype=dtype), rows(*lengths, dtype=dtype))
    return guard


ZERO = torch.zeros(1, dtype=torch.float64)


class TestClipping:
    def test_the_first_gradient_passes(self) -> None:
        gradient = rows(1e6)
        good, norm = Guard(gradient)(ZERO, gradient)
        assert bool(good.all()) and norm.item() == pytest.approx(1e6)
        torch.testing.assert_close(gradient, rows(1e6))

    @pytest.mark.parametrize("times", [1, 5, 500])
    def test_a_long_one_is_scaled_to_ten_times_the_running_length(self, times: int) -> None:
        # The running mean square is unbiased from the first step on.
        gradient = rows(1e3)
        _, norm = fed(2.0, times=times)(ZERO, gradient)
        assert norm.item() == pytest.approx(1e3)
        torch.testing.assert_close(gradient, rows(CLIP * 2.0))

    def test_a_usual_one_is_not_touched(self) -> None:
        gradient = rows(CLIP * 2.0 * 0.999)
        fed(2.0, times=3)(ZERO, gradient)
        torch.testing.assert_close(gradient, rows(CLIP * 2.0 * 0.999), rtol=0, atol=0)

    def test_the_running_length_is_a_root_mean_square(self) -> None:
        guard = Guard(rows(1.0))
        seen = [1.0, 3.0, 0.5, 2.0]
        for length in seen:
            guard(ZERO, rows(length))
        weights = [0.99**k for k in range(len(seen))][::-1]
        mean = sum(w * x * x for w, x in zip(weights, seen, strict=True)) / sum(weights)
        gradient = rows(1e4)
        guard(ZERO, gradient)
        torch.testing.assert_close(gradient, rows(CLIP * math.sqrt(mean)))

    def test_a_clipped_gradient_counts_as_clipped(self) -> None:
        guard = fed(1.0, times=50)
        guard(ZERO, rows(1e9))
        gradient = rows(1e9)
        guard(ZERO, gradient)
        # One entry of 10² among 51 of 1: sqrt(1 + 99 · 0.01 / (1 − 0.99⁵¹)) at most.
        assert gradient.norm().item() < CLIP * math.sqrt(1 + 99 * 0.01 / (1 - 0.99**51)) * 1.001

    def test_each_restart_has_its_own_length(self) -> None:
        guard = fed(1.0, 100.0)
        gradient = rows(500.0, 500.0)
        guard(torch.zeros(2, dtype=torch.float64), gradient)
        torch.testing.assert_close(gradient, rows(CLIP, 500.0))

    def test_gradients_that_were_zero_do_not_stop_the_fit(self) -> None:
        # As where q = p with the path gradient: 10 times 0 is no limit.
        gradient = rows(3.0)
        fed(0.0, times=4)(ZERO, gradient)
        torch.testing.assert_close(gradient, rows(3.0))

    @pytest.mark.parametrize("length", [1e-30, 1e25])
    def test_lengths_whose_square_is_out_of_range(self, length: float) -> None:
        # They may be clipped, yet neither stop the fit nor turn a later gradient into NaN.
        guard = Guard(torch.zeros(1, 1))
        for value in (length, length, 1.0):
            gradient = torch.tensor([[value]])
            good, _ = guard(torch.zeros(1), gradient)
            assert bool(good.all())
            assert 0 < gradient.item() <= 1.0001 * value


BAD = [math.nan, math.inf, -math.inf]


class TestSkipping:
    @pytest.mark.parametrize("value", BAD)
    @pytest.mark.parametrize("where", ["loss", "gradient"])
    def test_one_bad_restart_is_set_to_zero_and_counted(self, where: str, value: float) -> None:
        guard, loss, gradient = fed(1.0, 1.0), torch.zeros(2, dtype=torch.float64), rows(1.0, 1.0)
        if where == "loss":
            loss[0] = value
        else:
            gradient[0, 1] = value
        good, _ = guard(loss, gradient)
        assert good.tolist() == [False, True]
        assert gradient[0].tolist() == [0.0, 0.0]
        torch.testing.assert_close(gradient[1:], rows(1.0))
        assert guard.skipped.tolist() == [1, 0] == guard.in_a_row.tolist()

    def test_it_leaves_the_running_length_alone(self) -> None:
        guard, same = fed(1.0, 2.0), fed(1.0, 2.0)
        guard(torch.tensor([math.nan, math.nan], dtype=torch.float64), rows(5.0, 5.0))
        for name in ("mean_square", "weight"):
            assert torch.equal(getattr(guard, name), getattr(same, name))

    def test_the_others_are_as_without_it(self) -> None:
        loss = torch.zeros(2, dtype=torch.float64)
        alone, beside = fed(1.0, 2.0), fed(1.0, 2.0)
        for length in (1.0, 70.0, 3.0):
            clean, spoiled = rows(1.0, length), rows(math.nan, length)
            alone(loss, clean)
            beside(loss, spoiled)
            assert torch.equal(clean[1], spoiled[1])
        assert beside.mean_square[1] == alone.mean_square[1]

    def test_good_steps_between_reset_the_count(self) -> None:
        guard = fed(1.0)
        for _ in range(3):
            for _ in range(PATIENCE - 1):
                guard(ZERO, rows(math.nan))
            guard(ZERO, rows(1.0))
        assert guard.alive.tolist() == [True]
        assert guard.skipped.tolist() == [3 * (PATIENCE - 1)]

    def test_dropped_after_patience_and_for_good(self) -> None:
        guard, loss = fed(1.0, 1.0), torch.zeros(2, dtype=torch.float64)
        for step in range(PATIENCE):
            assert guard.alive.tolist() == [True, True], step
            guard(loss, rows(math.nan, 1.0))
        assert guard.alive.tolist() == [False, True]
        gradient = rows(1.0, 1.0)
        good, _ = guard(loss, gradient)
        assert good.tolist() == [False, True]
        assert gradient[0].tolist() == [0.0, 0.0]
        assert guard.skipped.tolist() == [PATIENCE, 0]

    def test_state_dict_goes_on_bit_for_bit(self) -> None:
        guard = fed(1.0, 2.0, times=3)
        other = Guard(rows(1.0, 1.0))
        other.load_state_dict({k: v.clone() for k, v in guard.state_dict().items()})
        loss = torch.zeros(2, dtype=torch.float64)
        for lengths in ((50.0, 1.0), (math.nan, 3.0), (1.0, 1.0)):
            a, b = rows(*lengths), rows(*lengths)
            guard(loss, a)
            other(loss, b)
            assert torch.equal(a, b)
        for name, value in guard.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])


class TestKeepRows:
    """A skipped restart's parameters and optimiser state stay bit for bit."""

    @pytest.mark.parametrize(
        "cls",
        [
            optim.Adam,
            optim.AdamW,
            optim.Adamax,
            optim.NAdam,
            optim.RAdam,
            optim.RMSprop,
            optim.Adagrad,
            optim.Adadelta,
            optim.SGD,
            optim.ASGD,
            optim.Rprop,
        ],
    )
    def test_masked_rows_do_not_move(self, cls: type[optim.Optimizer]) -> None:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(3, 4, generator=generator)
        grads = [torch.randn(3, 4, generator=generator) for _ in range(3)]
        options = {"momentum": 0.9} if cls in (optim.SGD, optim.RMSprop) else {}
        parameters = start.clone().requires_grad_()
        optimizer = cls([parameters], lr=0.1, **options)  # type: ignore[call-arg]
        plain = start.clone().requires_grad_()
        reference = cls([plain], lr=0.1, **options)  # type: ignore[call-arg]
        good = torch.tensor([True, False, True])
        for step, grad in enumerate(grads):
            before = parameters.detach().clone()
            state = {
                k: v.clone()
                for k, v in optimizer.state[parameters].items()
                if isinstance(v, Tensor) and v.shape == before.shape
            }
            masked = step != 1
            parameters.grad = torch.where(good.unsqueeze(1), grad, 0.0) if masked else grad.clone()
            plain.grad = grad.clone()
            restore = keep_rows(optimizer, parameters)
            optimizer.step()
            reference.step()
            if masked:
                restore(good)
                assert torch.equal(parameters[1], before[1])
                for key, value in state.items():
                    assert torch.equal(optimizer.state[parameters][key][1], value[1]), key
            assert torch.equal(parameters[0], plain[0]) and torch.equal(parameters[2], plain[2])

    def test_rprop_keeps_its_first_step_size(self) -> None:
        # State that the optimiser makes at its first step is not 0 everywhere.
        parameters = torch.zeros(2, 1, requires_grad=True)
        optimizer = optim.Rprop([parameters], lr=0.1)
        parameters.grad = torch.tensor([[1.0], [0.0]])
        restore = keep_rows(optimizer, parameters)
        optimizer.step()
        restore(torch.tensor([True, False]))
        parameters.grad = torch.tensor([[1.0], [1.0]])
        optimizer.step()
        assert parameters[1].item() == pytest.approx(-0.1)


def normal(z: Tensor) -> Tensor:
    return -0.5 * (z * z).sum(-1)


class Spoiled(LogDensity):
    """A normal whose value at the draws of some restarts is NaN at some calls.

    Args:
        bad: (call, restart) -> whether; calls are counted from 0, one a step. Batches that are
            no step's, such as those of the search for missed mass, are left alone.
        n: draws a restart.
        gradient: whether the gradient is spoiled and not the value.
    """

    def __init__(self, bad: object, n: int, gradient: bool = False) -> None:
        super().__init__(normal, 2, name="spoiled")
        self.bad, self.n, self.in_gradient, self.calls = bad, n, gradient, 0

    def log_prob(self, z: Tensor) -> Tensor:
        value = super().log_prob(z)
        blocks, rest = divmod(len(z), self.n)
        if not z.requires_grad or rest:
            return value
        mask = torch.tensor([self.bad(self.calls, r) for r in range(blocks)])  # type: ignore[operator]
        self.calls += 1
        mask = mask.repeat_interleave(self.n)
        if self.in_gradient:
            return value + torch.where(mask, 0 * z[:, 0], 1.0).sqrt() - (~mask).to(value)
        return torch.where(mask, torch.nan, value)


STEPS, N_MC, R = 30, 8, 3


def fit(target: LogDensity, steps: int = STEPS, restarts: int = R, **options: object) -> object:
    nfvi = NFVI("scale-planar*2-loc", seed=3)
    # What depends on the number of calls is not seen by a traced step.
    options = {"compile": False, "progress": False, **options}
    return nfvi.fit(target, steps=steps, n_mc=N_MC, restarts=restarts, **options)


def trained(target: LogDensity, **options: object) -> tuple[Tensor, object]:
    """All parameters after a fit (R, P), and the fit."""
    found = fit(target, **options)
    return found._trainer.ensemble.flat.detach().clone(), found


class TestFits:
    @pytest.mark.parametrize("in_gradient", [False, True])
    def test_other_restarts_do_not_notice(self, in_gradient: bool) -> None:
        clean, _ = trained(Spoiled(lambda call, r: False, N_MC))
        target = Spoiled(lambda call, r: r == 1 and call % 3 == 1, N_MC, in_gradient)
        spoiled, found = trained(target)
        assert torch.equal(clean[0], spoiled[0]) and torch.equal(clean[2], spoiled[2])
        assert not torch.equal(clean[1], spoiled[1])
        assert [r.skipped for r in found.restarts] == [0, 10, 0]
        assert not any(r.dropped for r in found.restarts)
        assert "10 steps skipped" in str(found)

    def test_a_restart_that_never_steps_stays_where_it_started(self) -> None:
        one, _ = trained(Spoiled(lambda call, r: r == 1, N_MC), steps=1)
        many, _ = trained(Spoiled(lambda call, r: r == 1, N_MC), steps=20)
        assert torch.equal(one[1], many[1])
        assert not torch.equal(one[0], many[0])

    def test_dropped_restarts_are_shown_and_not_kept(self) -> None:
        steps = PATIENCE + 10
        _, found = trained(Spoiled(lambda call, r: r != 2, N_MC), steps=steps)
        assert [r.dropped for r in found.restarts] == [True, True, False]
        assert [r.best for r in found.restarts] == [False, False, True]
        assert [r.skipped for r in found.restarts] == [PATIENCE, PATIENCE, 0]
        assert math.isnan(found.restarts[0].elbo) and "dropped" in str(found)
        assert found.elbo == pytest.approx(math.log(2 * math.pi), abs=0.1)

    def test_all_dropped_names_step_flow_and_parameter(self) -> None:
        good_steps = 5
        target = Spoiled(lambda call, r: call >= good_steps, N_MC, gradient=True)
        with pytest.raises(FitError) as caught:
            fit(target, steps=10 * PATIENCE)
        text = str(caught.value)
        assert f"step {good_steps + PATIENCE}" in text
        assert "flow 0, scale, parameter rho_0" in text
        guide = caught.value.guide
        assert all(bool(p.isfinite().all()) for p in guide.parameters())
        # The gradient was last good for parameters that steps before had moved.
        start, _ = trained(Spoiled(lambda call, r: True, N_MC), steps=1)
        assert not any(torch.equal(guide.flows[0].rho, row[:2]) for row in start)

    def test_without_a_good_step_there_is_no_good_guide(self) -> None:
        with pytest.raises(FitError) as caught:
            fit(Spoiled(lambda call, r: True, N_MC), steps=PATIENCE)
        assert caught.value.guide is None
        assert "no step was good" in str(caught.value)

    def test_a_loss_that_is_not_finite_says_so(self) -> None:
        with pytest.raises(FitError, match="losses"):
            fit(Spoiled(lambda call, r: call > 0, N_MC), steps=2 * PATIENCE)

    def test_parameters_that_were_thrown_out_of_range_are_not_the_last_good(self) -> None:
        # A step that overflows: the loss is finite before it, and never again.
        with pytest.raises(FitError) as caught:
            fit(
                LogDensity(normal, 2),
                steps=2 * PATIENCE,
                restarts=1,
                optimizer=torch.optim.SGD,
                lr=1e38,
            )
        guide = caught.value.guide
        assert all(bool(p.isfinite().all()) for p in guide.parameters())
        assert bool(guide.log_prob(torch.zeros(2)).isfinite())
