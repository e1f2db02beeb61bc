"""SIGKILL at random moments: what is resumed ends bit for bit as the fit that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nfvi import NFVI
from tests.training.callbacks.killed import FITS, run, state_of


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Any]]:
    """Each fit, left alone."""
    return {kind: state_of(kind, None) for kind in FITS}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """As in the processes that are killed: sums over threads are rounded differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FITS)
def test_killed_at_random_moments(
    kind: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nfvi"])
    rng, resumed = random.Random(kind), 0
    for moment in range(17):
        file = tmp_path / f"{moment}.ckpt"
        every = rng.choice((1, 3, 10))
        child = context.Process(target=run, args=(kind, str(file), every))
        child.start()
        step = rng.randrange(2, whole[kind]["steps"])
        while child.is_alive() and _said(file) < step:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        child.kill()
        child.join()
        if not file.exists():  # killed before the first file was whole
            continue
        resumed += 1
        assert state_of(kind, NFVI.resume(file)) == whole[kind], (moment, step, every)
    print(f"{kind}: {resumed} of 17 killed fits had a file, and were resumed")  # noqa: T201
    assert resumed >= 12


def _said(file: Path) -> int:
    try:
        return int(file.with_suffix(".step").read_text() or 0)
    except FileNotFoundError:
        return 0
