"""How the ladder of fits ends, and what of it counts."""

from __future__ import annotations

import math
import time

import jax
import jax.numpy as jnp
import pytest

from benchmarks.speed.compiling import COMPILING, Compiling
from benchmarks.speed.fitter import climb, reached
from tests.benchmarks.speed.shared import Steady


class TestTheLadder:
    def test_it_ends_at_the_first_fit_that_is_near_enough(self) -> None:
        rungs = climb(Steady([0.2, 0.04, 0.001, 0.0]), 0.05, 1, 60.0)
        assert [rung["steps"] for rung in rungs] == [10, 20]
        found = reached(rungs, 0.05)
        assert found is not None and found["steps"] == 20
        assert reached(rungs, 0.01) is None

    def test_no_fit_begins_that_would_take_too_long(self) -> None:
        rungs = climb(Steady([0.2] * 4, seconds=0.05), 0.05, 1, 0.12)
        assert len(rungs) == 1

    def test_a_gap_that_is_no_number_is_infinite(self) -> None:
        assert climb(Steady([math.nan] * 4), 0.05, 1, 60.0)[0]["gap"] == math.inf

    def test_cold_has_the_compiling_of_another_fit(self) -> None:
        rungs = [
            {"steps": 10, "gap": 0.3, "wall_time": 9.0, "cpu_time": 9.0, "compiling": 8.0},
            {"steps": 20, "gap": 0.01, "wall_time": 2.0, "cpu_time": 2.0, "compiling": 0.5},
        ]
        found = reached(rungs, 0.05)
        assert found == {"steps": 20, "warm": 1.5, "cold": 9.5, "cpu_time": 2.0}

    def test_a_trace_within_a_trace_counts_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ends = iter([3.0, 5.0, 9.0])
        monkeypatch.setattr(time, "perf_counter", lambda: next(ends))
        compiling = Compiling()
        for event, seconds in ((COMPILING[0], 1.0), (COMPILING[0], 4.0), (COMPILING[2], 2.0)):
            compiling._listen(event, seconds)
        compiling._listen("/jax/another_event", 100.0)
        assert compiling.seconds == 6.0

    def test_jax_tells_when_it_compiles(self) -> None:
        with Compiling() as compiling:
            jax.jit(lambda x: x * 3 + 1)(jnp.ones(3)).block_until_ready()
        assert compiling.seconds > 0
