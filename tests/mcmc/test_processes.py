"""Tests of chains side by side in processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from nfvi import LogDensity, PyroTarget, TargetError, hmc, nuts

pytest.importorskip("joblib")
SMALL = {"draws": 15, "warmup": 15, "chains": 2, "seed": 3, "progress": False}


def same(one, two) -> None:
    for name in ("draws", "starts", "diverging", "draw_gradients", "accept", "step_size"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert one.gradient_evaluations == two.gradient_evaluations
    assert not two.interrupted


@pytest.mark.parametrize("sampler", [nuts, hmc])
def test_chains_side_by_side_give_the_very_draws(sampler):
    scale = torch.tensor([1.0, 3.0])  # held by a lambda, which plain pickle refuses
    target = LogDensity(lambda z: -0.5 * (z / scale).square().sum(-1), 2)
    before = torch.random.get_rng_state()
    same(sampler(target, **SMALL), sampler(target, n_jobs=2, **SMALL))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.pyro_params
@pytest.mark.filterwarnings("ignore:.*has parameters")
def test_a_model_typed_in_a_function_with_parameters_goes_along():
    data = torch.tensor([0.3, 1.2, -0.4])

    def model() -> None:
        width = pyro.param("width", torch.tensor(1.5))
        mean = pyro.sample("mean", dist.Normal(0.0, width))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=data)

    with pyro.get_param_store().scope():
        pyro.param("width", torch.tensor(0.7))
        target = PyroTarget(model)
        one = nuts(target, **SMALL)
        same(one, nuts(target, n_jobs=2, **SMALL))


def test_what_cannot_be_sent_is_refused_with_its_reason():
    lock = threading.Lock()

    def locked(z: Tensor) -> Tensor:
        with lock:
            return -0.5 * z.square().sum(-1)

    with pytest.raises(TargetError, match=r"'locked' cannot be sent to other processes .*lock"):
        nuts(LogDensity(locked, 2), n_jobs=2, **SMALL)


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5, True, "all"])
def test_a_wrong_number_of_jobs_is_refused(n_jobs):
    with pytest.raises(ValueError, match="n_jobs must be an integer of at least 1"):
        nuts(LogDensity(lambda z: -0.5 * z.square().sum(-1), 2), n_jobs=n_jobs, **SMALL)


SLOW = """
import signal, sys, time, torch
from nfvi import LogDensity, nuts
# What a shell starts in the background ignores Ctrl-C, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
def slow(z):
    time.sleep(0.01)
    return -0.5 * z.square().sum(-1)
def main():
    print("begun", flush=True)
    nuts(LogDensity(slow, 2), draws=100_000, warmup=10, chains=2, seed=0, n_jobs=2, progress=False)
try:
    main()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_stops_the_processes():
    # A session of its own, so that all of its processes can be found, and none outlives the test.
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert run.stdout is not None and run.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 60
        while len(members(run.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(8)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        assert run.communicate(timeout=300)[0] == "interrupted\n"
        while members(run.pid) and time.monotonic() < deadline + 60:
            time.sleep(0.1)
        assert not members(run.pid)
    finally:
        if members(run.pid):
            os.killpg(run.pid, signal.SIGKILL)


def members(session: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(name))
    return found
