"""What every test runs under: a fixed seed, no global state left changed, CUDA only where it is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

os.environ.setdefault("MPLBACKEND", "Agg")

import pyro
import pytest
import torch
from hypothesis import settings

# Shared machines stall: no deadline. In CI the examples are the same in every run.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``cuda`` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


def _global_state() -> dict[str, object]:
    """The process-wide switches that a library must leave as it found them."""
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradient mode": torch.is_grad_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "number of threads": torch.get_num_threads(),
        # The seed, not the state: drawing is no offence, seeding is.
        "torch's seed": torch.initial_seed(),
        "argument checking of torch.distributions": torch.distributions.Distribution._validate_args,
        "handler of SIGINT": signal.getsignal(signal.SIGINT),
        "working directory": os.getcwd(),
        **{f"Pyro's setting {name}": value for name, value in pyro.settings.get().items()},
    }


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT raises, as in a terminal; what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def leaves_no_trace(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test from a fixed seed and an empty Pyro store; fail it if it changes global state.

    A test that seeds torch itself does so inside ``torch.random.fork_rng``, or uses a
    ``torch.Generator``; one that fills Pyro's parameter store is marked ``pyro_params``, and one
    that for a while changes what all of its process shares is marked ``process_wide``.
    """
    process_wide = request.node.get_closest_marker("process_wide")
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), pyro.get_param_store().scope():
        torch.manual_seed(0)
        before = _global_state()
        with _interruptible() if process_wide else nullcontext():
            yield
        after = _global_state()
        changed = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
        torch.set_default_dtype(before["default dtype"])  # one failure, not one in each test after
        left = [] if request.node.get_closest_marker("pyro_params") else [*pyro.get_param_store()]
    assert not changed, f"the test left global state changed (before, after): {changed}"
    assert not left, f"the test left parameters in Pyro's store: {left}"
