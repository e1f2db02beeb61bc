"""Calibration: exact fits pass, wrong ones are named, and nothing is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from models import eight_schools, funnel_2d, linear_regression
from nfvi import (
    Calibration,
    FitError,
    FormulaError,
    PyroTarget,
    TargetError,
    calibrate,
    plots,
)
from nfvi.assess import calibration_run, calibration_task
from nfvi.assess.calibration_run import outcomes
from nfvi.assess.uniformity import band, bin_band
from nfvi.fit import Diagnostics, Findings
from nfvi.plots.style import COLORS
from nfvi.targets.pyro.simulation import given_data, simulate
from nfvi.utils import WorkerError

DATA = torch.zeros(4)
QUICK = {"steps": 60, "n_mc": 8, "restarts": 1, "anneal": False, "lr": 0.1, "n_jobs": 1}


def normal_mean(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("n", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def two_effects(y, noise=0.15):
    """A normal posterior with the correlation −1 / (1 + noise²)."""
    with pyro.plate("sides", 2):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(b.sum(), noise), obs=y)


class Exact:
    """Stands in for NFVI: the posterior N(m, 1/5) of ``normal_mean``, moved or widened."""

    scale, shift, fails, interrupts = 1.0, 0.0, (), ()
    stopped = "steps"
    calls = 0

    def __init__(self, *, seed=None, **_):
        pass

    def fit(self, data, **_):
        Exact.calls += 1
        if Exact.calls in self.fails:
            raise FitError("the loss was never finite")
        if Exact.calls in self.interrupts:
            signal.raise_signal(signal.SIGINT)
        self.data = data
        return self

    def sample(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        mean, sd = self.data["y"].sum() / 5 + self.shift, 5**-0.5
        return {"mu": mean + sd * self.scale * torch.randn(n, generator=generator)}

    def findings(self, *, search):
        """A high k-hat in every fourth fit; a search is not to be paid for."""
        assert search is False
        return Findings(
            Diagnostics(0.0, 0.0, 0.9 if Exact.calls % 4 == 0 else 0.1, 9_000, 10_000, 0.0, 0.0)
        )


@pytest.fixture
def stand_in(monkeypatch):
    """``normal_mean`` with fits that are the posterior, or differ from it by known amounts."""

    def run(simulations=200, **changes) -> Calibration:
        for name, value in ({"calls": 0} | changes).items():
            monkeypatch.setattr(Exact, name, value)
        monkeypatch.setattr(calibration_task, "NFVI", Exact)
        monkeypatch.setattr(calibration_task, "given_data", lambda target, data: data)
        return calibrate(normal_mean, "tril", DATA, simulations=simulations, n_jobs=1, seed=3)

    return run


def test_exact_draws_have_uniform_ranks(stand_in):
    """A false alarm has a chance of 1 %; the mean rank has a standard error of 0.02."""
    found = stand_in()
    assert found.passed and found.ranks["mu"].shape == (200,)
    assert found.ranks["mu"].min() >= 0 and found.ranks["mu"].max() <= 99
    (check,) = found.checks
    assert check.words == "" and abs(check.mean - 0.5) < 0.09 and abs(check.spread - 1) < 0.16
    assert "No rank departs" in str(found) and "200 simulations" in str(found)
    assert found.verdicts == {"good": 150, "usable": 0, "not to be trusted": 50}
    said = "verdicts on the fits, without a search for missed mass: good 150, not to be trusted 50"
    assert said in " ".join(str(found).split())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 0.7}, "too narrow (∪)"),
        ({"scale": 1.5}, "too wide (∩)"),
        ({"shift": -0.25}, "too low"),
        ({"shift": 0.25}, "too high"),
    ],
)
def test_wrong_draws_are_named(stand_in, changes, words):
    """200 simulations see an sd that is 30 % too small, and a mean that is off by 0.56 sd."""
    found = stand_in(**changes)
    assert not found.passed and found.checks[0].words == words
    assert words in str(found) and "are not uniform" in str(found)
    assert all(len(line) <= 88 for line in str(found).splitlines())


def test_failures_are_counted(stand_in):
    found = stand_in(20, fails=(3, 7))
    assert found.failures == dict.fromkeys((2, 6), "the loss was never finite")
    assert len(found.indices) == 18 and 2 not in found.indices
    assert sum(found.verdicts.values()) == 18
    assert not found.passed and "2 fits failed" in str(found)
    with pytest.raises(FitError, match="all of 2 fits failed, the first with: the loss"):
        stand_in(2, fails=(1, 2))


@pytest.mark.process_wide
def test_ctrl_c_keeps_what_was_done(stand_in):
    found = stand_in(20, interrupts=(4,))
    assert found.indices == (0, 1, 2, 3) and found.simulations == 20
    assert "16 of 20 simulations were not done" in " ".join(str(found).split())


def test_simulations_do_not_depend_on_their_number(stand_in):
    assert torch.equal(stand_in(30).ranks["mu"][:10], stand_in(10).ranks["mu"])


def test_a_formula_that_can_be_exact_passes_and_one_that_cannot_does_not():
    exact = calibrate(
        two_effects, "tril", torch.zeros(()), simulations=30, draws=39, seed=1, **QUICK
    )
    assert exact.passed
    narrow = calibrate(
        two_effects, "scale-loc", torch.zeros(()), simulations=30, draws=39, seed=1, **QUICK
    )
    assert [check.words for check in narrow.checks] == ["too narrow (∪)"] * 2
    assert all(check.spread > 1.2 for check in narrow.checks)
    for kind in ("ecdf", "histogram"):
        first, second = narrow.plot(kind).axes
        assert first.get_title() == "b[0] too narrow (∪)" and second.get_title()[:4] == "b[1]"
        assert first.title.get_color() == COLORS["right"]
    assert len(plots.ranks(narrow, names=["b[1]"]).axes) == 1
    with pytest.raises(ValueError, match=r"no scalar 'c'; there are b\[0\], b\[1\]"):
        plots.ranks(narrow, names=["c"])
    with pytest.raises(ValueError, match="kind must be 'ecdf' or 'histogram', got 'bar'"):
        narrow.plot("bar")


def test_bands_are_those_of_the_test():
    """Uniform ranks leave that of the ECDF with 1 % in all scalars, and one bin's with 1 %."""
    found = calibrate(two_effects, "loc", torch.zeros(()), simulations=20, draws=9, seed=1, **QUICK)
    assert list(found.columns) == ["b[0]", "b[1]"]
    for i, column in enumerate(found.columns.values()):
        np.testing.assert_array_equal(column, found.ranks["b"][:, i])
    for mine, wanted in zip(found.ecdf_band(), band(20, 9, 0.005), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    shares = np.array([0.5, 0.25])
    for mine, wanted in zip(found.bin_band(shares), bin_band(20, shares, 0.01), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_weighted_draws_mend_what_the_guide_gets_wrong():
    """At a correlation of −0.67 scale-loc has sds of 0.74 of the right ones, and k-hat is 0.7."""
    how = {"simulations": 20, "draws": 39, "seed": 2, **QUICK}
    raw, weighted = (
        calibrate(two_effects, "scale-loc", DATA[0], 0.7, weighted=option, **how)
        for option in (False, True)
    )
    assert weighted.passed and weighted.weighted
    assert "importance-resampled draws" in " ".join(str(weighted).split())
    pairs = zip(raw.checks, weighted.checks, strict=True)
    assert all(before.spread > after.spread + 0.03 for before, after in pairs)


def test_ranks_do_not_depend_on_the_processes():
    """On a model of another module; Ctrl-C in the end."""
    x = torch.linspace(-1, 1, 6).unsqueeze(-1)
    how = {"simulations": 4, "draws": 9, "seed": 5, "steps": 5, "n_mc": 4, "restarts": 1}
    one, two = (
        calibrate(linear_regression, "scale-loc", x, x[:, 0], n_jobs=n, **how) for n in (1, 2)
    )
    assert one.ranks.keys() == {"precision", "intercept", "weights"} and one.indices == two.indices
    assert all(torch.equal(one.ranks[site], two.ranks[site]) for site in one.ranks)
    assert two.ranks["weights"].shape == (4, 1)


@pytest.mark.process_wide
def test_ctrl_c_stops_the_processes_too():
    target = PyroTarget(eight_schools)
    settings = {"formula": "scale-loc", "base": "normal", "dtype": None}
    options = {"steps": 3, "n_mc": 4, "restarts": 1}
    task = calibration_task.Task.of(target, settings, options, 9, False, 0)
    found = []
    for outcome in outcomes(task, target, 400, 2):
        found.append(outcome.index)
        if len(found) == 1:
            signal.raise_signal(signal.SIGINT)
    assert 1 <= len(found) < 20


ORPHANS = """
import os, time, pathlib
import pyro, torch
import pyro.distributions as dist
from nfvi import calibrate

HOME = os.getpid()

def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    if os.getpid() != HOME:
        pathlib.Path(str(os.getpid())).touch()
        time.sleep(0.01)

if __name__ == "__main__":
    calibrate(model, "loc", torch.zeros(()), simulations=8, steps=100_000, n_jobs=2)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_processes_end_when_their_parent_is_killed(tmp_path):
    """They write their numbers into the folder, and would work for hours."""
    (tmp_path / "script.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path)
    while len(found := [p.name for p in tmp_path.iterdir() if p.name.isdigit()]) < 2:
        assert parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    for _ in range(300):
        alive = [pid for pid in found if works(pid)]
        if not alive:
            return
        time.sleep(0.1)
    for pid in alive:
        os.kill(int(pid), signal.SIGKILL)
    pytest.fail(f"{len(alive)} processes went on without their parent")


def works(pid: str) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_what_processes_that_died_had_left_are_failures(monkeypatch):
    task = calibration_task.Task.of(PyroTarget(eight_schools), {}, {}, 9, False, 0)

    def died(done):
        def run(work, shared, items, **_):
            yield from (calibration_task.Outcome(k, {}, {}) for k in done)
            raise WorkerError("killed by SIGKILL")

        return run

    monkeypatch.setattr(calibration_run, "in_processes", died((1,)))
    found = {outcome.index: outcome.failure for outcome in outcomes(task, task.target, 3, 2)}
    assert found == {1: "", 0: "its process died", 2: "its process died"}
    monkeypatch.setattr(calibration_run, "in_processes", died(()))
    with pytest.raises(FitError, match=r"before its first simulation.*SIGKILL"):
        list(outcomes(task, task.target, 3, 2))


def test_what_a_model_observes_is_simulated():
    """Sites with data, drawn given the latent ones; what has no plate is drawn for each datum."""

    def model(y):
        mu = pyro.sample("mu", dist.Normal(50.0, 1.0))
        rate = pyro.deterministic("rate", mu * 2)
        pyro.sample("y", dist.Normal(rate, 0.01), obs=y)

    target = PyroTarget(model, torch.zeros(5))
    drawn = simulate(target, 1)
    assert drawn.latents.keys() == {"mu"} and drawn.data.keys() == {"y"}
    assert drawn.data["y"].shape == (5,) and len(drawn.data["y"].unique()) == 5
    torch.testing.assert_close(drawn.data["y"] / 2, drawn.latents["mu"].expand(5), rtol=0, atol=0.1)
    assert torch.equal(simulate(target, 1).data["y"], drawn.data["y"])
    assert not torch.equal(simulate(target, 2).data["y"], drawn.data["y"])
    given = given_data(target, drawn.data)
    at = drawn.latents["mu"].reshape(1, 1)
    expected = dist.Normal(2 * at, 0.01).log_prob(drawn.data["y"]).sum()
    expected = expected + dist.Normal(50.0, 1.0).log_prob(at).sum()
    torch.testing.assert_close(given.log_prob(at)[0], expected)


def improper(y):
    mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])


def factor(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.factor("extra", -mu.abs())
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])


def subsampled(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("n", 4, subsample_size=2) as i:
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[i])


def nothing_observed(y):
    pyro.sample("mu", dist.Normal(0.0, 1.0))


@pytest.mark.filterwarnings("ignore:.*draws its own subsample")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (improper, "site 'mu' is an improper prior"),
        (factor, "site 'extra' is a pyro.factor term"),
        (subsampled, "site 'y' is a scaled log-density"),
        (nothing_observed, "has no observed site with these arguments"),
    ],
)
def test_models_that_cannot_be_simulated_from_are_refused(model, message):
    with pytest.raises(TargetError, match=message):
        calibrate(model, "scale-loc", DATA)


def test_what_is_no_pyro_model_is_refused():
    with pytest.raises(TargetError, match="calibrate needs a Pyro model, to draw data from"):
        calibrate(funnel_2d, "scale-loc")
    with pytest.raises(TargetError, match="takes no model arguments"):
        calibrate(PyroTarget(normal_mean, DATA), "scale-loc", DATA)


def test_a_model_in_a_function_can_be_sent_and_one_with_a_lock_cannot():
    lock = threading.Lock()

    def local(y):
        normal_mean(y)

    def locked(y):
        with lock:
            normal_mean(y)

    quick = {**QUICK, "steps": 2, "simulations": 2, "draws": 3, "seed": 0}
    here = calibrate(local, "scale-loc", DATA, **quick)
    there = calibrate(local, "scale-loc", DATA, **{**quick, "n_jobs": 2})
    assert torch.equal(here.ranks["mu"], there.ranks["mu"])
    with pytest.raises(TargetError, match=r"'locked' cannot be sent .*lock.*n_jobs=1"):
        calibrate(locked, "scale-loc", DATA, **{**quick, "n_jobs": 2})


def test_the_name_of_earlier_versions_is_deprecated():
    quick = {**QUICK, "steps": 2, "simulations": 2, "draws": 3, "n_jobs": None}
    with pytest.warns(DeprecationWarning, match="processes= is called n_jobs= now"):
        calibrate(normal_mean, "loc", DATA, **quick, processes=1)
    with pytest.raises(ValueError, match="n_jobs=2 and processes=1 mean the same"):
        calibrate(normal_mean, "loc", DATA, **{**quick, "n_jobs": 2}, processes=1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"simulations": 0}, "simulations must be an integer of at least 1"),
        ({"draws": 2.5}, "draws must be an integer"),
        ({"n_jobs": 0}, "n_jobs must be an integer of at least 1, or -1"),
        ({"steps": -1}, "steps must be an integer"),
        ({"restarts": 0}, "restarts must be an integer"),
        ({"weighted": "no"}, "weighted must be True or False, got 'no'"),
        ({"init": torch.zeros(1)}, "init must be one of 'auto'"),
        ({"steps": "forever"}, "steps must be an integer of at least 1 or \"auto\", got 'forever'"),
        ({"n_mc": 1}, "n_mc must be an integer of at least 2, got 1"),
        ({"combine": "mix"}, 'combine must be "best" or "mixture", got \'mix\''),
        ({"anneal": "fast"}, "anneal must be fractions"),
        ({"gradient": "both"}, 'gradient must be "path" or "total"'),
        ({"lr": 0}, "lr must be a positive number"),
        ({"seed": -1}, "seed must be an integer"),
        ({"base": "wrong"}, "wrong"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_run(argument, message, monkeypatch):
    monkeypatch.setattr("nfvi.assess.calibration.outcomes", None)
    with pytest.raises(ValueError, match=message):
        calibrate(normal_mean, "scale-loc", DATA, **argument)
    with pytest.raises(FormulaError):
        calibrate(normal_mean, "scale-lok", DATA)


def test_scalars_that_never_vary_are_left_out():
    """The corners of a Cholesky factor of a correlation are 1 and 0, at any value."""

    def model(y):
        pyro.sample("corr", dist.LKJCholesky(2, concentration=torch.tensor(2.0)))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y[0])

    quick = {**QUICK, "steps": 5, "simulations": 20, "draws": 9, "seed": 0}
    found = calibrate(model, "scale-loc", DATA, **quick)
    assert found.constant["corr"].tolist() == [[True, True], [False, False]]
    assert [check.name for check in found.checks] == ["corr[1,0]", "corr[1,1]"]
