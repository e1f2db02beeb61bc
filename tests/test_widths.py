"""Whatever is printed has lines of at most 88 columns, with long names and huge numbers too."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from nfvi import NFVI, MissedMass, compare, nuts
from nfvi.assess.calibration_text import CalibrationFacts, calibration_text
from nfvi.assess.compare_numbers import Distances, Row
from nfvi.assess.compare_sides import Moments
from nfvi.assess.compare_text import ComparisonFacts, SideFacts, comparison_text
from nfvi.assess.evidence import EvidenceComparison, EvidenceRow
from nfvi.assess.rank_checks import RankCheck
from nfvi.cli.app import app
from nfvi.fit import ClimbPath, Rung, summarize, summary_lines
from nfvi.fit.verification import ScalarCheck, Verification
from nfvi.mcmc.summary import RunReport, ScalarSummary, summary_frame, summary_text
from nfvi.search import Place

WIDTH = 88
LONG = "(realnvp(hidden=[128, 128], activation=silu)*8-lu)*3-sinharcsinh-scale-loc"
NAMES = ("tau", "effect_of_treatment[12, 3]", "a_site_whose_name_is_longer_than_those_of_most[0]")
NUMBERS = (-1.234567e-5, 9.87654e11, -123456.7, math.nan)


def run_report(name: str, x: float) -> str:
    row = ScalarSummary(name, x, abs(x), -x, x, 1.001, 123456.0, 98765.0)
    report = RunReport(
        kernel="NUTS", target=f"{name} of {LONG}", chains=16, draws=100_000, warmup=100_000, seed=4,
        wall_time=12345.6, warmup_time=1.0, sampling_time=3.0, gradient_evaluations=8_000_000_000,
        accept=[0.8] * 16, step_size=[abs(x)] * 16, diverged=123, cut=17, max_gradients=1023,
        interrupted=True, table=(row, replace(row, name="b", rhat=1.7, ess_tail=9.0)),
    )  # fmt: skip
    return summary_text(report)


def compared(name: str, x: float) -> str:
    one = Moments(x, abs(x), -x, x, mean_se=abs(x), log_sd_se=0.01)
    rows = (Row(name, one, one, x, 0.1, 1.1, 0.0123, (abs(x), 1234.5)),)
    left = SideFacts(LONG, 100_000, 1, True, 123.4, 98765.0, math.nan, "not to be trusted")
    right = SideFacts("NUTS", 100_000, 16, False, 12345.6, 98765.0, 1.7, "")
    far = Distances(10_000, 0.1, (0.1, 0.2), (0.1, 0.2), 0.1)
    return comparison_text(ComparisonFacts(name, left, right, rows, (rows, rows), far))


def climbed(name: str, x: float) -> str:
    rung = Rung(LONG, x, 0.1, 3.21, 0.123, x, 100_000, 123_456, 1_234_567_890, 12345.6)
    rungs = rung, replace(rung, formula="tril-loc", components=12, base="studentt(df=20)")
    return str(
        ClimbPath(rungs, 1, f"{name} is as good as can be told: k-hat 0.46, and so on", 1, 1)
    )


def verified(name: str, x: float) -> str:
    check = ScalarCheck(name, x, -x, abs(x), abs(x), 0.123, 1.23, 12345.6)
    return str(Verification((check,), 0.9, 4_000, 30, True, 0.8, 1_234_567))


def calibrated(name: str, x: float) -> str:
    check = RankCheck(name, 0.6, 12.3, 8.0, 9.0, 1e-9, 1e-8)
    failures, verdicts = {3: "the fit failed " * 9}, {"good": 900, "usable": 90}
    facts = (LONG, name, 1_000, 990, failures, verdicts, 999, True, (check,), 4, 12345.6)
    return calibration_text(CalibrationFacts(*facts))


def evidences(name: str, x: float) -> str:
    row = EvidenceRow(
        name, x, 0.1, -abs(x), 0.2, 1e-300, 1e-301, 0.5, 1e-9, 1e-10, 0.9, "not to be trusted",
        ("the fit is not to be trusted, so that its log evidence is unreliable",),
    )  # fmt: skip
    return str(EvidenceComparison((replace(row, difference=0.0, difference_se=0.0), row)))


def missed(name: str, x: float) -> str:
    place = Place(torch.full((20,), x, dtype=torch.float64).nan_to_num(), x, 0.3, 12345.6)
    return str(MissedMass((place,), 0.3, 0.1, x, x, 2**21, 512, 1e6, 40, 20_000))


def frames(name: str, x: float) -> str:
    mcmc = ("mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat")
    table = summary_frame({name: [x] * 9, "b": [1.0] * 9}, mcmc)
    draws = summarize({name: torch.tensor([x, 1.0, 2.0], dtype=torch.float64)})
    return f"{table}\n{draws}\n{summary_lines(table, 1)}"


@pytest.mark.parametrize("x", NUMBERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "said",
    [run_report, compared, climbed, verified, calibrated, evidences, missed, frames],
)
def test_made_up(said: Any, name: str, x: float) -> None:
    text = said(name, x)
    assert text and max(map(len, text.splitlines())) <= WIDTH, text


def test_a_table_of_usual_names_and_numbers_is_not_folded() -> None:
    """Every table has its titles once, as all columns find a place beside each other."""
    assert run_report("theta[12]", -123.4).count("hdi_3%") == 1
    assert str(frames("theta[12]", 12.34)).count("mcse_mean") == 3
    usual = compared("theta[12]", 12.34).replace(LONG, "")
    assert usual.count("ESS/s") == 1 and climbed("x", -1234.5).count("gradients") == 1
    assert verified("theta[12]", 12.34).count("tail ≥") == 1


def test_a_fit_a_run_and_their_comparison() -> None:
    def log_p(z: torch.Tensor) -> torch.Tensor:
        return -0.5 * (z - 123456.0).square().sum(-1) / 1e6

    fit = NFVI("realnvp(hidden=[8])*2-scale-loc", seed=0).fit(log_p, dim=2, steps=5, restarts=3)
    run = nuts(log_p, dim=2, draws=20, warmup=20, chains=2, seed=0)
    tables = fit._summarized(50, False), run.summary()
    for shown in (fit, run, compare(fit, run, draws=50, seed=0), *tables, fit.search(draws=500)):
        assert max(map(len, str(shown).splitlines())) <= WIDTH, str(shown)


def test_a_fit_to_data() -> None:
    rng = np.random.default_rng(0)
    columns = [f"a column with a rather long name {i}" for i in range(2)]
    table = pd.DataFrame(1e9 * rng.normal(size=(60, 2)), columns=columns)
    fit = NFVI(LONG, seed=0).fit_data(table, epochs=1)
    for shown in (fit, fit.summary(50)):
        assert max(map(len, str(shown).splitlines())) <= WIDTH, str(shown)


@pytest.mark.parametrize(
    "words", [["flows"], ["--help"], ["fit", "--help"], ["fit-data", "--help"]]
)
def test_the_command_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and max(map(len, done.output.splitlines())) <= 80
