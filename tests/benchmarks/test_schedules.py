"""What benchmarks/schedules.py fits, and what it makes of the rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import schedules
from benchmarks.schedules import CASES, Case, Job, Settings, jobs_of, main, tables
from nfvi import LogDensity

NORMAL = Case(
    "normal",
    "loc",
    lambda: LogDensity(lambda z: -0.5 * (z**2).sum(-1), 2, log_normalizer=math.log(math.tau)),
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case, and two settings of a few steps."""
    monkeypatch.setattr(schedules, "CASES", (NORMAL,))
    settings = {"3 steps": Settings(3), "4 steps": Settings(4, draws="qmc")}
    monkeypatch.setattr(schedules, "SETTINGS", settings)


def row(**changes: Any) -> dict[str, Any]:
    values = {"method": "planar*8", "target": "pot1", "seed": 1, "settings": "5 000, 0.02, iid"}
    return {**values, "status": "ok", "kl": 0.03, "mass_left": 0.5, "cpu_time": 13.0, **changes}


def test_a_seed_comes_after_the_other_and_names_are_filtered() -> None:
    jobs = list(jobs_of(["on pot1", "nsf"], ["5 000, 0.02, iid", "the defaults"], 2))
    assert [job.seed for job in jobs] == [1] * 8 + [2] * 8
    assert {job.case.name for job in jobs} == {"pot1", "banana"}
    assert len({str(job.key()) for job in jobs}) == 16


def test_a_network_has_the_lower_rate() -> None:
    settings = Settings(10, (0.04, 0.01), "qmc", prune=True)
    with_network = Case("funnel", "iaf", lambda: None, network=True)
    assert settings.arguments(with_network) == {
        "steps": 10,
        "lr": 0.01,
        "draws": "qmc",
        "hold": 0.0,
        "prune": True,
    }
    assert settings.arguments(NORMAL)["lr"] == 0.04
    for case in CASES:
        networks = any(name in case.formula for name in ("realnvp", "nsf", "maf", "iaf"))
        assert case.network == networks


def test_the_gap_of_a_guide_that_is_right_is_nothing(short: None) -> None:
    """``loc`` starts within some hundredths of N(0, I), whose log Z − ELBO is half the square."""
    found = Job(NORMAL, "4 steps", 1).measure()
    assert abs(found["kl"]) < 0.01 + 4 * found["kl_se"]
    assert (found["steps"], found["mass_left"]) == (4, None)
    assert found["cpu_time"] > 0 and found["status"] == "ok"


def test_what_is_there_is_not_fitted_again(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "rows.json")
    main(["--out", out, "--seeds", "1", "--settings", "3 steps"])
    monkeypatch.setattr(Job, "measure", lambda _: pytest.fail("fitted again"))
    main(["--out", out, "--seeds", "1", "--settings", "3 steps"])
    main(["--out", out, "--table"])
    assert capsys.readouterr().out.count("| loc on normal |") == 9


def test_tables_show_median_worst_and_lost_modes() -> None:
    gaps = [0.02, 0.03, 0.7]
    rows = [row(seed=s, kl=kl) for s, kl in enumerate(gaps)]
    rows[2]["mass_left"] = 0.001
    rows.append(row(settings="2 500, 0.05, qmc", cpu_time=6.0))
    text = tables(rows)
    assert "| formula and target | 5 000, 0.02, iid | 2 500, 0.05, qmc |" in text
    assert "| planar*8 on pot1 | 0.0300 (0.7000), 1 lost a mode | 0.0300 |" in text
    assert "| planar*8 on pot1 | 13.0 | 6.0 |" in text
    assert "| planar*8 on pot1 | 3 | 1 |" in text
