"""The lock on Pyro's handler stack: threads take turns, and an error leaves nothing behind."""

from __future__ import annotations

import threading

import pytest
from pyro import poutine
from pyro.poutine.runtime import _PYRO_STACK

from nfvi.utils import process_wide


def _fail_with_a_handler_left() -> None:
    with process_wide():
        poutine.trace().__enter__()  # as a thread that was in the way would leave it
        raise KeyError


def test_an_error_leaves_the_handler_stack_as_it_was() -> None:
    with poutine.trace() as outer:
        with pytest.raises(KeyError):
            _fail_with_a_handler_left()
        assert [outer] == _PYRO_STACK
    assert not _PYRO_STACK


def test_one_thread_at_a_time_and_it_may_enter_again() -> None:
    inside, most = 0, 0
    barrier = threading.Barrier(4)

    def work() -> None:
        nonlocal inside, most
        barrier.wait()
        for _ in range(200):
            with process_wide(), process_wide():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
