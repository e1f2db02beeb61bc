"""The learning rate's warm-up, decay and cycles, and the rise of β."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfvi.training.schedule import REVIVAL, WARMUP, LearningRate, Tempering

LIKE = torch.zeros((), dtype=torch.float64)


class TestLearningRate:
    def test_it_rises_in_a_line_to_the_top(self) -> None:
        rate = LearningRate.over(5_000)
        for step in range(WARMUP):
            # Cosine decay has taken 0.03 % at the end of the warm-up.
            assert rate(step) == pytest.approx((step + 1) / WARMUP, rel=1e-3)

    def test_it_falls_by_a_cosine_to_zero(self) -> None:
        rate = LearningRate.over(1_000)
        assert rate(500) == pytest.approx(0.5)
        assert rate(250) == pytest.approx((1 + 2**-0.5) / 2)
        assert 0 < rate(999) < 1e-5
        assert rate(1_000) == 0

    @given(steps=st.integers(1, 3_000))
    def test_every_step_moves_and_none_goes_over_the_top(self, steps: int) -> None:
        values = [LearningRate.over(steps)(step) for step in range(steps)]
        assert all(0 < value <= 1 for value in values)
        top = values.index(max(values))
        assert values[top:] == sorted(values[top:], reverse=True)
        assert top <= max(WARMUP, steps // 10)

    def test_one_step_is_at_full_rate(self) -> None:
        assert LearningRate.over(1)(0) == 1

    def test_a_cycle_more_starts_where_the_last_ended(self) -> None:
        rate = LearningRate.over(1_000)
        longer = rate.extend(400)
        assert longer.steps == 1_400 and rate.steps == 1_000
        assert all(longer(step) == rate(step) for step in range(1_000))
        again = LearningRate.over(400)
        assert all(longer(1_000 + s) == pytest.approx(REVIVAL * again(s)) for s in range(400))
        assert longer(1_400) == 0

    def test_cycles_of_cycles(self) -> None:
        assert LearningRate.over(3).extend(2).extend(5).steps == 10


class TestTempering:
    def test_each_restart_rises_for_its_own_time(self) -> None:
        beta = Tempering((100, 0, 10))
        assert beta(0, LIKE).tolist() == [0.01, 1.0, 0.01]
        assert beta(5, LIKE).tolist() == pytest.approx([0.0595, 1.0, 0.505])
        assert beta(50, LIKE).tolist() == pytest.approx([0.505, 1.0, 1.0])
        assert beta(100, LIKE).tolist() == [1.0, 1.0, 1.0]
        assert beta(10_000, LIKE).tolist() == [1.0, 1.0, 1.0]

    def test_it_never_falls(self) -> None:
        beta = Tempering((37,))
        values = torch.cat([beta(step, LIKE) for step in range(60)])
        assert bool((values.diff() >= 0).all()) and values[-1] == 1

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_dtype_follows(self, dtype: torch.dtype) -> None:
        assert Tempering((2, 0))(1, torch.zeros(1, dtype=dtype)).dtype == dtype
