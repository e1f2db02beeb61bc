"""Whether the ELBO of the best restart still rises."""

from __future__ import annotations

import math

import pytest
import torch

from nfvi.fit.restarts import Restart, still_rises
from nfvi.training import History

RESTARTS = tuple(
    Restart(k, 0.0, 0.1, tempered=False, skipped=0, dropped=False, best=k == 1) for k in range(2)
)


def history(steps: int, gain: float, error: float = 0.01) -> History:
    """The ELBO of restart 1 rises by the gain in each fifth of the steps, that of 0 falls."""
    made = History()
    for rise in torch.linspace(0, 5 * gain, steps).tolist():
        elbo = torch.tensor([-rise, rise])
        rest = {name: torch.zeros(2) for name in ("loss", "grad_norm", "beta")}
        made.append(0.1, 8, elbo=elbo, elbo_se=torch.full((2,), error), **rest)
    return made


@pytest.mark.parametrize(("gain", "rises"), [(-0.5, False), (0.005, False), (0.5, True)])
def test_a_gain_counts_from_a_hundredth_of_a_nat(gain: float, rises: bool) -> None:
    assert still_rises(history(400, gain), RESTARTS) is rises


def test_a_gain_within_three_standard_errors_may_be_chance() -> None:
    # The standard error of the gain of 80 steps over 80 is that of one step by √(2 / 80).
    error = 0.5 / math.sqrt(2 / 80)
    assert still_rises(history(400, 0.5, error / 3.3), RESTARTS)
    assert not still_rises(history(400, 0.5, error / 2.7), RESTARTS)


def test_no_step_is_no_rise() -> None:
    assert not still_rises(History(), RESTARTS)


def test_a_gain_within_the_noise_of_the_rows_may_be_chance() -> None:
    made, generator = History(), torch.Generator().manual_seed(0)
    for rise in torch.linspace(0, 2.0, 400).tolist():
        elbo = torch.tensor([0.0, rise]) + 5 * torch.randn((), generator=generator)
        rest = {name: torch.zeros(2) for name in ("loss", "grad_norm", "beta")}
        made.append(0.1, 8, elbo=elbo, elbo_se=torch.full((2,), 1e-3), **rest)
    assert not still_rises(made, RESTARTS, rows=True)
    assert still_rises(history(400, 0.5), RESTARTS, rows=True)
