"""One bar for the whole of a climb: what it says, when, and how its line ends."""

from __future__ import annotations

import re

import pytest
import torch

from models import pot4
from nfvi import NFVI, Budget, LogDensity, ProgressBar
from nfvi.auto import bar
from nfvi.auto.forecast import in_words
from nfvi.search import search

# Waves, to which no mixture of Gaussians comes near.
CURVED = LogDensity(pot4.log_prob, 2, name="curved")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every drawing is seen, and searches are short."""
    monkeypatch.setattr(bar, "EVERY", 0.0)
    monkeypatch.setattr(search, "DRAWS_FEW_DIMENSIONS", 20_000)


def climb(**options):
    return NFVI("auto", seed=0).fit(CURVED, **{"progress": True, **options})


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a climb of three steps draws, one drawing after the other."""
    climb(budget=Budget(steps=3))
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("\n")
    return [line.rstrip() for line in err.replace("\n", "\r").split("\r") if line.strip()]


def stages(shown: list[str]) -> list[str]:
    """The names of stages, each once, in their order."""
    found = [re.match(r"auto: (.*?)(?: \d+/[\d,]+)? \|", line) for line in shown]
    return list(dict.fromkeys(match[1] for match in found if match))


def test_every_stage_is_named_from_the_first_second_on(shown: list[str]) -> None:
    first = ["time of an evaluation", "Gaussians", "search for modes", "mixtures of Gaussians"]
    assert stages(shown)[:5] == [*first, "search for missed mass"]
    assert "monotone*3" in stages(shown)


def test_says_first_what_to_expect(shown: list[str]) -> None:
    (line,) = [k for k, text in enumerate(shown) if "curved: one evaluation" in text]
    assert all("Gaussians" not in text for text in shown[:line])


def test_time_budget_elbo_and_khat(shown: list[str]) -> None:
    last = shown[-1]
    assert re.search(r"\| \d\d:\d\d, 0 steps left, ELBO -?\d+\.\d{3}, k-hat -?\d\.\d\d$", last)
    steps = [re.search(r"monotone\*3 (\d)/500 .*, (\d) steps left", text) for text in shown]
    assert {(m[1], m[2]) for m in steps if m} >= {("1", "2"), ("2", "1"), ("3", "0")}
    # The length is the share of the budget that is spent: a third, and two thirds.
    bars = [re.search(r"monotone\*3 ([12])/500 \|(.*?)\|", text) for text in shown]
    full = {m[1]: sum(not c.isspace() for c in m[2]) / len(m[2]) for m in bars if m}
    assert full == pytest.approx({"1": 1 / 3, "2": 2 / 3}, abs=0.15)


def test_without_a_budget_there_is_no_length(capsys: pytest.CaptureFixture[str]) -> None:
    normal(progress=True)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert re.fullmatch(r"auto: (scale-loc|tril) \d\d:\d\d, ELBO 1\.838.*", last)


def test_its_line_is_ended_after_ctrl_c_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(state):
        raise KeyboardInterrupt

    climb(callbacks=[interrupt])  # keeps what there is
    assert capsys.readouterr().err.endswith("\n")

    def fail(state):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        climb(callbacks=[fail])
    assert capsys.readouterr().err.endswith("\n")


def normal(**options):
    return NFVI("auto", seed=0).fit(lambda z: -0.5 * z.square().sum(-1), dim=2, **options)


def test_the_numbers_are_the_same_with_and_without_it() -> None:
    with_bar, without = normal(progress=True), normal(progress=False)
    assert torch.equal(with_bar.sample(10, seed=1), without.sample(10, seed=1))


def test_silent_where_nobody_looks_and_beside_a_bar_of_ones_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    normal()
    normal(progress=True, callbacks=[ProgressBar()])
    assert capsys.readouterr() == ("", "")


def test_times_in_words() -> None:
    assert [in_words(x) for x in (0.00012, 0.012, 0.5, 12.3, 240.0, 7e5)] == [
        "0.12 ms", "12 ms", "0.50 s", "12 s", "4 min", "194 h",
    ]  # fmt: skip
