"""The checks stop a fit that has converged, and none that still gains."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nfvi import NFVI, CheckElboConvergence, CheckParametersConvergence, Stop
from nfvi.training.callbacks.convergence import gain_between
from nfvi.training.history import History

MEAN, SD = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 1.0, 2.0])
LOG_Z = float(SD.log().sum()) + 1.5 * math.log(2 * math.pi)


def gaussian(z):
    return -0.5 * (((z - MEAN) / SD) ** 2).sum(-1)


def two_modes(z):
    return torch.logaddexp(gaussian(z), gaussian(z - 3.0))


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


# --- the ELBO ---


def state_of(elbo, elbo_se, beta=None, alive=None):
    """What the check sees of a fit with this ELBO and error (steps, R)."""
    history = History()
    beta = torch.ones_like(elbo) if beta is None else beta
    for e, s, b in zip(elbo, elbo_se, beta, strict=True):
        history.append(0.1, loss=-e, elbo=e, elbo_se=s, grad_norm=s, beta=b)
    alive = torch.ones(elbo.shape[1], dtype=torch.bool) if alive is None else alive
    return SimpleNamespace(step=len(elbo), history=history, alive=alive)


def noise(steps, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, columns, generator=generator, dtype=torch.float64)


def test_fires_on_a_gaussian_that_has_converged():
    for seed in range(3):
        check = CheckElboConvergence(every=20, window=60, tolerance=0.05)
        fit = NFVI("scale-loc", seed=seed).fit(
            gaussian, dim=3, steps=600, n_mc=32, restarts=2, lr=0.05, callbacks=[check]
        )
        assert fit.stopped.startswith(f"ELBO converged at step {fit.steps}: in 60 steps it gained")
        assert fit.steps < 600 and fit.steps % 20 == 0
        # Tempering takes 180 steps, and both windows must lie after it.
        assert fit.steps >= 180 + 2 * 60
        # Nothing but the noise floor of this learning rate is left.
        assert abs(fit.elbo - LOG_Z) < 0.05


def test_does_not_fire_on_a_fit_that_still_gains():
    """Planar flows that creep: every window gains more than the tolerance, to the last step.

    The chance of a false alarm is at most Φ(−3) = 0.13 % a check for a gain of exactly the
    tolerance, so below 3 % for the 23 checks here, and far less as the gain is larger.
    """
    check = CheckElboConvergence(every=20, window=60, tolerance=0.05)
    fit = NFVI("planar*2", seed=0).fit(
        two_modes,
        dim=3,
        steps=580,
        n_mc=32,
        restarts=2,
        anneal=False,
        draws="iid",
        hold=0,
        lr=2e-3,
        callbacks=[check],
    )
    assert fit.stopped == "steps"
    halves = fit.history.elbo[-120:].double().unflatten(0, (2, 60)).mean(1)
    assert (halves[1] - halves[0]).max() > 0.05  # it does still gain


def alarms(values, gain=0.1, se=0.5, z=2.0):
    """Fraction of histories (2W, columns) + a steady gain that the check takes for converged."""
    ramp = gain * torch.arange(len(values), dtype=torch.float64) / (len(values) / 2)
    found = gain_between(values + ramp.unsqueeze(1), torch.full_like(values, se))
    return float((found.gain + z * found.error < gain).double().mean()), found


def test_rate_of_false_alarms():
    """Where the gain is exactly the tolerance, a check fires with a probability of Φ(−z)."""
    columns = 4000
    rate, found = alarms(0.5 * noise(400, columns))
    spread = (phi(-2) * phi(2) / columns) ** 0.5
    assert rate < phi(-2) + 4 * spread
    # Nor is it timid: the error is the exact one, but for the larger of two estimates of it.
    assert float(found.error.mean()) == pytest.approx(0.5 * (2 / 200) ** 0.5, rel=0.25)
    assert float(found.gain.mean()) == pytest.approx(0.1, abs=4 * 0.05 / columns**0.5)


def test_rate_of_false_alarms_when_the_parameters_wander():
    """An ELBO that follows an AR(1) process with φ = 0.9, at the default window of 500 steps.

    A value is then worth 1/19 of an independent one, and the error of independent draws would
    fire in a third of the cases. Blocks of 50 steps see most of it: Φ(−2) = 2.3 % becomes 3.2 %
    by the t distribution with 18 degrees of freedom, and about 4 % as blocks are correlated.
    """
    values = noise(1000, 2000)
    for i in range(1, 1000):
        values[i] = 0.9 * values[i - 1] + values[i] * (1 - 0.9**2) ** 0.5
    rate, found = alarms(0.5 * values)
    assert rate < 0.04 + 4 * (0.04 * 0.96 / 2000) ** 0.5
    naive = 0.5 * (2 / 500) ** 0.5
    assert float((found.gain + 2 * naive < 0.1).double().mean()) > 0.25


def test_fires_when_the_noise_allows_it_and_not_before():
    flat = torch.full((200, 2), 3.0, dtype=torch.float64)
    elbo = flat + 0.1 * noise(200, 2)
    error = 0.1 * (2 / 100) ** 0.5  # of the gain
    for tolerance, fires in [(10 * error, True), (1 * error, False)]:
        check = CheckElboConvergence(every=1, window=100, tolerance=tolerance)
        assert isinstance(check(state_of(elbo, torch.full_like(elbo, 0.1))), Stop) is fires


def test_waits_for_two_windows_and_for_its_turn():
    check = CheckElboConvergence(every=30, window=100)
    for steps, fires in [(199, False), (200, False), (210, True), (211, False)]:
        elbo = torch.zeros(steps, 1)
        assert isinstance(check(state_of(elbo, elbo)), Stop) is fires


def test_waits_for_the_end_of_tempering_in_every_restart():
    check = CheckElboConvergence(every=1, window=100)
    elbo = torch.zeros(300, 2)
    for cold_from, fires in [(100, True), (101, False)]:
        beta = torch.ones(300, 2)
        beta[:cold_from, 1] = 0.99
        assert isinstance(check(state_of(elbo, elbo, beta)), Stop) is fires


def test_every_restart_must_have_converged_but_the_dropped_ones():
    check = CheckElboConvergence(every=1, window=100)
    elbo = torch.zeros(200, 3)
    elbo[:, 1] = torch.linspace(0, 1, 200)
    elbo[:, 2] = torch.nan
    for alive, fires in [((1, 1, 0), False), ((1, 0, 0), True), ((1, 0, 1), False)]:
        state = state_of(elbo, torch.zeros_like(elbo), alive=torch.tensor(alive, dtype=torch.bool))
        assert isinstance(check(state), Stop) is fires


def test_skipped_steps_are_left_out():
    elbo = 0.1 * noise(200, 1)
    holes = elbo.clone()
    holes[::7], holes[3::11] = torch.nan, -torch.inf
    keep = holes.isfinite().squeeze(1)
    found = gain_between(holes, torch.full_like(holes, 0.1))
    by_hand = elbo[100:][keep[100:]].mean() - elbo[:100][keep[:100]].mean()
    assert float(found.gain) == pytest.approx(float(by_hand), abs=1e-12)
    holes[100:151] = torch.nan
    assert float(gain_between(holes, torch.full_like(holes, 0.1)).error) == math.inf


@pytest.mark.parametrize(
    "arguments", [{"every": 0}, {"window": 19}, {"tolerance": 0}, {"z": -1.0}, {"z": math.nan}]
)
def test_wrong_arguments_for_the_elbo(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CheckElboConvergence(**arguments)


# --- the parameters ---


def walk(check, *vectors, alive=None):
    """Whether the check stops after each of these parameter matrices (R, 3), one a step."""
    answers = []
    for step, value in enumerate(vectors, 1):
        value = torch.as_tensor(value)
        dead = torch.ones(len(value), dtype=torch.bool) if alive is None else torch.tensor(alive)
        parameters = {"u_0": value[:, :2], "b_0": value[:, 2]}
        answers.append(
            check(SimpleNamespace(step=step, parameters=parameters, alive=dead)) is not None
        )
    return answers


@pytest.mark.parametrize("order", [math.inf, -math.inf, 1, 2, 3.5])
@pytest.mark.parametrize("diff", ["relative", "absolute"])
def test_norm_of_the_change(order, diff):
    before, after = np.array([1.0, -2.0, 0.5]), np.array([1.1, -2.05, 0.48])
    delta = np.abs(after - before) / (np.abs(before) + 1e-6 if diff == "relative" else 1.0)
    norm = np.linalg.norm(delta, order)
    for tolerance, fires in [(norm * 1.001, True), (norm * 0.999, False)]:
        check = CheckParametersConvergence(1, float(tolerance), diff, order)
        assert walk(check, before[None], after[None]) == [False, fires]


def test_compares_with_the_check_before():
    check = CheckParametersConvergence(every=3, tolerance=0.1, diff="absolute")
    moving = [torch.full((1, 3), 0.07 * i) for i in range(7)]
    # Between the checks at 1, 3 and 6 it moves by 0.14 and 0.21, though by 0.07 a step.
    assert not any(walk(check, *moving))
    check = CheckParametersConvergence(every=3, tolerance=0.22, diff="absolute")
    assert walk(check, *moving) == [False, False, True, False, False, True, False]


def test_every_restart_but_the_dropped_ones():
    still, moved = torch.ones(2, 3), torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]])
    assert walk(CheckParametersConvergence(every=1), still, moved) == [False, False]
    check = CheckParametersConvergence(every=1)
    assert walk(check, still, moved, alive=[True, False]) == [False, True]


def test_a_parameter_that_stays_at_zero_has_converged():
    zero = torch.zeros(1, 3)
    assert walk(CheckParametersConvergence(every=1), zero, zero) == [False, True]


def test_stops_a_fit_and_starts_afresh_with_the_next():
    check = CheckParametersConvergence(every=10, tolerance=0.02, diff="absolute")
    fits = [
        NFVI("scale-loc", seed=0).fit(
            gaussian, dim=3, steps=300, n_mc=32, restarts=2, callbacks=[check]
        )
        for _ in range(2)
    ]
    assert 10 < fits[0].steps < 300 and fits[0].steps % 10 == 0
    assert fits[0].stopped == f"parameters converged at step {fits[0].steps}"
    assert fits[1].steps == fits[0].steps


@pytest.mark.parametrize(
    "arguments",
    [{"every": 0}, {"tolerance": 0.0}, {"diff": "both"}, {"ord": "fro"}, {"ord": math.nan}],
)
def test_wrong_arguments_for_the_parameters(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CheckParametersConvergence(**arguments)
