"""Ctrl-C during a fit: the fit so far is returned, and can go on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch

from nfvi import NFVI, Callback, Checkpoint, Tracker
from nfvi.training import interrupt
from nfvi.training.interrupt import catch_interrupt

pytestmark = pytest.mark.process_wide


def target(z):
    return -0.5 * (z[..., 0] - z[..., 1] ** 2) ** 2 - 0.5 * z[..., 1] ** 2


fit = partial(NFVI("planar*2", seed=2).fit, target, dim=2, steps=100, n_mc=16, restarts=2)


def press_at(*steps):
    def callback(state):
        if state.step in steps:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_returns_the_fit_so_far():
    half = fit(callbacks=[press_at(40)])
    assert half.stopped == "interrupted" and half.steps == 40
    assert "interrupted; refine() continues" in " ".join(str(half).split())
    assert half.sample(3).shape == (3, 2)


def test_refine_goes_on_bit_for_bit():
    trackers = [Tracker(every=3, elbo=lambda s: s.elbo) for _ in range(2)]
    half = fit(callbacks=[press_at(40), trackers[0]])
    half.sample(10)
    assert half.khat  # looking at a fit must not change how it continues
    half.refine(60, callbacks=[trackers[0]])
    whole = fit(callbacks=[trackers[1]])
    assert half.stopped == whole.stopped == "steps"
    for name, value in whole.guide.state_dict().items():
        assert torch.equal(half.guide.state_dict()[name], value), name
    for name, value in whole.history.state_dict().items():
        assert torch.equal(half.history.state_dict()[name], value), name
    assert half.restarts == whole.restarts and half.elbo == whole.elbo
    assert torch.equal(trackers[0]["elbo"], trackers[1]["elbo"])


def test_a_checkpoint_is_written_and_resumed(tmp_path):
    file = tmp_path / "fit.ckpt"
    fit(callbacks=[press_at(40), Checkpoint(file)])
    resumed, whole = NFVI.resume(file).fit(target, dim=2), fit()
    assert resumed.stopped == "steps"
    for name, value in whole.guide.state_dict().items():
        assert torch.equal(resumed.guide.state_dict()[name], value), name


def test_the_handler_is_put_back():
    mine = lambda number, frame: None  # noqa: E731
    signal.signal(signal.SIGINT, mine)
    fit(callbacks=[press_at(5)])
    assert signal.getsignal(signal.SIGINT) is mine

    def fail(state):
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        fit(callbacks=[fail])
    assert signal.getsignal(signal.SIGINT) is mine


def test_a_second_press_raises_at_once():
    closed = []

    class Closing(Callback):
        def close(self, state):
            closed.append(state.stopped)

    def press_twice(state):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[Closing(), press_twice])
    assert closed == [None]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_it_goes_on_ignoring_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert fit(steps=10, callbacks=[press_at(5)]).steps == 10
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_a_thread_nothing_is_changed():
    seen = []

    def work():
        with catch_interrupt() as interruption:
            seen.append((signal.getsignal(signal.SIGINT), interruption.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, False)]


CHILD = """
import signal, time
from nfvi import NFVI

signal.signal(signal.SIGINT, signal.default_int_handler)

def slowly(state):
    print("step", state.step, flush=True)
    time.sleep(0.02)

fit = NFVI("scale-loc", seed=0).fit(
    lambda z: -(z**2).sum(-1), dim=2, steps=10_000, n_mc=16, callbacks=[slowly]
)
print("stopped", fit.stopped, fit.steps, flush=True)
"""


def test_a_signal_from_outside():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    with child:
        for line in child.stdout:
            word, *values = line.split()
            if (word, values) == ("step", ["20"]):
                child.send_signal(signal.SIGINT)
    assert child.returncode == 0
    assert word == "stopped" and values[0] == "interrupted" and 20 <= int(values[1]) < 10_000


def test_what_torchrun_sends_after_ctrl_c_is_no_second_press(monkeypatch):
    """In its terminal a process gets SIGINT, and another one from torchrun at once."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setattr(interrupt._Last, "pressed", -float("inf"))
    half = fit(callbacks=[press_at(40), press_at(40)])
    assert half.stopped == "interrupted" and half.steps == 40
    with interrupt.interrupt_once():  # what follows of the fit is not broken off
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(interrupt, "ECHO", 0.0)
    with pytest.raises(KeyboardInterrupt), interrupt.interrupt_once():
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_held_until_a_message_is_through():
    done = []

    def talk():
        with interrupt.hold_interrupt():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        talk()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
