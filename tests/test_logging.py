"""What nfvi logs: its decisions and their reasons, to those who listen."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from nfvi import NFVI, nuts
from nfvi.search import search
from nfvi.training import step


def normal(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(-1)


def branching(z: Tensor) -> Tensor:
    return normal(z) if float(z.detach().sum()) < 1e9 else 2 * normal(z)


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="nfvi")
    return caplog


def test_silent_until_somebody_asks() -> None:
    logger = logging.getLogger("nfvi")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert (logger.level, logger.propagate, logger.disabled) == (logging.NOTSET, True, False)


def test_a_climb_says_what_it_chose_and_why(
    heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "DRAWS_FEW_DIMENSIONS", 10_000)
    fit = NFVI("auto", seed=1, dtype=torch.float64).fit(normal, dim=2, budget=60, progress=False)
    said = heard.messages
    for begins in (
        "budget of 60 s", "start of normal: ", "scattered starts end in", "search of normal: ",
    ):  # fmt: skip
        assert any(line.startswith(begins) for line in said), begins
    count = len(fit.path)
    kept = [line for line in said if line.startswith("rung ") and line.endswith(": kept")]
    dropped = [line for line in said if ": dropped, as its " in line]
    assert (len(kept), len(dropped)) == (1, count - 1)
    assert f"the climb ended: {fit.path.reason}" in said


def test_a_fit_says_whether_it_is_traced(
    heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "LEAST_STEPS", 1)
    how = {"dim": 2, "steps": 3, "n_mc": 4, "restarts": 2, "progress": False}
    fit = NFVI("loc", seed=1).fit(normal, **how)
    (ended,) = [line for line in heard.messages if line.startswith("loc: ended after 3 steps")]
    assert ended.endswith("steps were traced")
    assert f"2 restarts, kept {fit.kept[0]}" in heard.messages
    heard.clear()
    NFVI("loc", seed=1).fit(branching, **how)
    assert any(line.startswith("steps run as written, since") for line in heard.messages)


def test_details_are_for_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="nfvi")
    NFVI("loc", seed=1).fit(normal, dim=2, steps=2, n_mc=4, restarts=2, progress=False)
    levels = {record.getMessage()[:9]: record.levelname for record in caplog.records}
    assert levels["restart 0"] == levels["fit of no"] == "DEBUG"


def test_chains_say_how_they_went(heard: pytest.LogCaptureFixture) -> None:
    run = nuts(normal, dim=2, draws=8, warmup=8, chains=2, seed=1, progress=False)
    found = f"nuts chain 2: step size {run.step_size[1]:.3g}"
    assert any(line.lower().startswith(found) for line in heard.messages)
