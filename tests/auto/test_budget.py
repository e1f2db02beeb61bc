"""Budget: what it accepts, and when it is spent."""

from __future__ import annotations

import math

import pytest

from nfvi import Budget


def test_the_first_limit_that_is_reached_is_named():
    budget = Budget(seconds=2.5, steps=1_000, evaluations=10**6)
    assert budget.spent(2.4, 999, 999_999) is None
    assert budget.spent(2.5, 999, 0) == "the budget of 2.5 seconds was spent"
    assert budget.spent(0.0, 1_000, 0) == "the budget of 1,000 steps was spent"
    assert budget.spent(0.0, 0, 10**6) == "the budget of 1,000,000 evaluations was spent"


def test_without_limits_it_is_never_spent():
    assert Budget().spent(1e9, 10**9, 10**12) is None


def test_from_what_a_fit_takes():
    assert Budget.of(None) == Budget()
    assert Budget.of(3) == Budget.of(3.0) == Budget(seconds=3.0)
    steps = Budget(steps=3)
    assert Budget.of(steps) is steps


@pytest.mark.parametrize("value", ["3", True, 0, -1.0, math.nan, math.inf, [3]], ids=str)
def test_wrong_values(value):
    with pytest.raises(ValueError, match=r"budget must be seconds over 0.* got "):
        Budget.of(value)


@pytest.mark.parametrize("name", ["seconds", "steps", "evaluations"])
@pytest.mark.parametrize("value", [0, -1, "3", True, math.nan])
def test_wrong_limits(name, value):
    with pytest.raises(ValueError, match=name):
        Budget(**{name: value})
