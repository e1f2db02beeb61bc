"""What benchmarks/multimodal makes of its fits: classes, rows, the file, the page."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.multimodal import jobs
from benchmarks.multimodal.__main__ import main
from benchmarks.multimodal.catalogue import SMALL
from benchmarks.multimodal.families import gaussian_mixture
from benchmarks.multimodal.jobs import Job, make_problem, rows_of
from benchmarks.multimodal.judge import class_of, counted
from benchmarks.multimodal.nested import NESTED
from benchmarks.multimodal.page import page
from benchmarks.multimodal.rows import errors_of, fit_row
from benchmarks.multimodal.tables import nested_in_words
from benchmarks.multimodal.text import line

GOOD = {"mean_error": 0.01, "sd_error": 0.01, "modes": 1.0}
BAD = {"mean_error": 0.5, "sd_error": 0.4, "modes": 0.5}
FIT: dict[str, Any] = {
    **{"method": "fit", "target": "grid25", "seed": 1, "settings": "auto", "status": "ok"},
    **{"environment": "2026-01-02, here", "dim": 2, "formula": "tril", "components": 25},
    **{"stopped": "auto", "verdict": "good", "reasons": ["KL is small."], "khat": 0.2},
    **{"elbo": 0.005, "log_evidence": 0.01, "log_evidence_se": 0.01, "log_z": 0.0, "log_z_se": 0.0},
    **{"log_z_error": 0.01, "plain": GOOD, "weighted": GOOD, "clean": True},
    **{"search_draws": 1000, "gradient_evaluations": 20_000, "batched_evaluations": 300},
    **{"cpu_time": 2.0, "wall_time": 3.0},
}
NESTED_ROW: dict[str, Any] = {
    **{"method": "nested", "target": "grid25", "seed": 1, "status": "ok", "dim": 2},
    **{"environment": "2026-01-02, there", "log_evidence": 0.07, "log_evidence_se": 0.09},
    **{"log_z": 0.0, "log_z_error": 0.07, "evaluations": 12_345, "cpu_time": 6.0},
    **{"wall_time": 7.0},
}
NOT_TRUSTED = {"verdict": "not to be trusted"}


def fit(**changes: Any) -> dict[str, Any]:
    return {**FIT, **changes}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "right"),
        ({"plain": BAD}, "SILENT"),
        ({"plain": BAD, "verdict": "usable"}, "right"),
        ({"weighted": BAD}, "right"),
        ({"weighted": BAD, "verdict": "usable"}, "SILENT"),
        ({"plain": BAD, **NOT_TRUSTED}, "said"),
        ({"weighted": BAD, **NOT_TRUSTED}, "right"),
        ({"plain": {**GOOD, "mean_error": 0.2, "sd_error": 0.2}}, "right"),
        ({"plain": {**GOOD, "mean_error": 0.201}}, "SILENT"),
        ({"plain": {**GOOD, "sd_error": 0.201}}, "SILENT"),
        ({"plain": {**GOOD, "sd_error": math.nan}}, "SILENT"),
        ({"plain": {**GOOD, "modes": 0.1}}, "right"),
        ({"log_z_error": -0.101}, "SILENT"),
        ({"log_z_error": 0.101, **NOT_TRUSTED}, "said"),
        ({"log_z_error": -math.inf}, "SILENT"),
        ({"log_z_error": 0.149, "log_z_se": 0.05}, "right"),
        ({"log_z_error": None}, "right"),
        ({"plain": {"mean_error": None, "sd_error": None, "modes": None}}, "right"),
        (
            {"plain": {"mean_error": None, "sd_error": None, "modes": None}, "log_z_error": None},
            "unknown",
        ),
        ({"status": "crashed", "error": "FitError: no"}, "crashed"),
    ],
)
def test_classes(changes: dict[str, Any], word: str) -> None:
    assert class_of(fit(**changes)) == word


def test_weighted_draws_count_where_they_are_recommended() -> None:
    row = fit(weighted=BAD)
    assert counted(row) is GOOD
    assert counted({**row, "verdict": "usable"}) is BAD
    assert counted({**row, **NOT_TRUSTED}) is GOOD


def test_errors_of_draws_by_hand() -> None:
    """Two modes at ∓3 of sd 1: the mean 0, the sd √10."""
    problem = gaussian_mixture(1, [0.5, 0.5], [-3.0, 3.0], [1.0, 1.0])
    z = torch.tensor([[2.0], [4.0]])
    half = torch.tensor([0.5, 0.5])
    found = errors_of(problem, z, half)
    assert found["mean_error"] == pytest.approx(3 / math.sqrt(10))
    assert found["sd_error"] == pytest.approx(1 - 1 / math.sqrt(10))
    assert found["modes"] == pytest.approx(0.5)
    one = errors_of(problem, z, torch.tensor([1.0, 0.0]))
    assert one["mean_error"] == pytest.approx(2 / math.sqrt(10))


def test_a_fit_of_two_modes_is_right_and_its_row_goes_into_json() -> None:
    row = {**Job("fit", "sep30_d1", 1).key(), "status": "ok", "environment": "here"}
    row |= fit_row(make_problem("sep30_d1"), 1)
    assert row["class"] == class_of(row) == "right" and row["verdict"] == "good"
    assert row["plain"]["modes"] == pytest.approx(1) and row["clean"] is True
    assert row["gradient_evaluations"] > row["batched_evaluations"] > 0
    assert row["search_draws"] > 0 and row["cpu_time"] > 0
    assert row["settings"] == "auto"
    assert json.loads(json.dumps(row))["components"] == 2
    assert "sep30_d1, fit auto, seed 1: right, verdict good; 2 × tril" in line(row)


def test_a_budget_is_another_setting() -> None:
    assert Job("fit", "cross", 2, budget=2.5).key()["settings"] == "auto, budget 2.5 s"
    assert "settings" not in Job("nested", "cross", 1).key()


class Measured:
    """In place of fits: rows that are made up, and the jobs for which they were asked."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, int]] = []
        self.changes: dict[str, Any] = {}

    def __call__(self, job: Job) -> dict[str, Any]:
        self.jobs.append((job.method, job.target, job.seed))
        row = NESTED_ROW if job.method == "nested" else fit(**self.changes)
        return {**row, **job.key()}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(jobs, "measure", made)
    return made


def test_what_is_there_is_not_run_again(measured: Measured, tmp_path: Path) -> None:
    out = [*("--out", str(tmp_path / "rows.json")), *("--markdown", str(tmp_path / "page.md"))]
    main(["--seeds", "2", "--only", "grid*", *out])
    assert measured.jobs == [
        *(("fit", "grid25", 1), ("fit", "grid25", 2)),
        *(("fit", "grid9_uneq", 1), ("fit", "grid9_uneq", 2)),
    ]
    measured.jobs.clear()
    main(["--seeds", "3", "--only", "grid25", *out])
    assert measured.jobs == [("fit", "grid25", 3)]
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["target"], row["seed"]) for row in rows] == [
        *(("grid25", 1), ("grid25", 2), ("grid9_uneq", 1), ("grid9_uneq", 2), ("grid25", 3)),
    ]
    measured.jobs.clear()
    main(["--seeds", "1", "--only", "grid25", "--budget", "9", "--nested", *out])
    assert measured.jobs == [("fit", "grid25", 1), ("nested", "grid25", 1)]
    measured.jobs.clear()
    main(["--page", *out])
    assert measured.jobs == []
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "what 5 fits gave" in text and "`auto, budget 9 s`" in text


def test_crashes_are_kept_until_they_are_tried_again(measured: Measured, tmp_path: Path) -> None:
    out = [*("--out", str(tmp_path / "rows.json")), *("--markdown", str(tmp_path / "page.md"))]
    measured.changes = {"status": "crashed", "error": "FitError: no"}
    main(["--seeds", "1", "--only", "cross", *out])
    measured.changes = {}
    main(["--seeds", "1", "--only", "cross", "label3", *out])
    assert measured.jobs == [("fit", "cross", 1), ("fit", "label3", 1)]
    assert "FitError: no" in (tmp_path / "page.md").read_text(encoding="utf-8")
    main(["--seeds", "1", "--only", "cross", "label3", "--retry", *out])
    assert measured.jobs[2:] == [("fit", "cross", 1)]
    assert "FitError: no" not in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_targets_without_their_files_are_left_out(measured: Measured, tmp_path: Path) -> None:
    out = [*("--out", str(tmp_path / "rows.json")), *("--markdown", str(tmp_path / "page.md"))]
    with pytest.raises(ValueError, match="'sonar' fits none of the targets: spike_d2"):
        main(["--only", "sonar", *out])
    main(["--only", "sonar", "--seeds", "1", "--data", str(tmp_path), *out])
    assert measured.jobs == [("fit", "sonar", 1)]


def test_an_error_of_a_fit_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(jobs, "fit_row", fails)
    row = jobs.measure(Job("fit", "cross", 1))
    assert row["status"] == "crashed" and row["error"] == "ValueError: no such thing"
    assert line(row) == "cross, fit auto, seed 1: ValueError: no such thing"


def test_rows_come_from_several_processes() -> None:
    """Of jobs that end at once, for want of such a target."""
    rows = list(rows_of([Job("fit", "none", seed) for seed in (1, 2, 3)], 2))
    assert sorted(row["seed"] for row in rows) == [1, 2, 3]
    assert {row["error"] for row in rows} == {"KeyError: 'none'"}


def test_the_page_says_how_much_it_holds() -> None:
    assert "No fit of the 69 targets has been run yet" in page([])
    one = page([fit()])
    assert (
        "This is what 1 fit gave, on 1 of 69 targets, with 1 seed; 0 of them are silently wrong"
        in one
    )
    assert "It is not the whole list" in one
    assert "Fits: 2026-01-02, here." in one
    assert "## What is not right" not in one and "## Nested sampling" not in one


def test_the_page_shows_what_is_wrong_and_what_it_costs() -> None:
    rows = [
        fit(),
        fit(seed=2, plain=BAD, log_z_error=-0.7),
        fit(seed=3, plain=BAD, verdict="not to be trusted", reasons=["k-hat is 0.9."]),
        fit(target="gmm40", plain={**GOOD, "modes": None}),
        NESTED_ROW,
    ]
    text = page(rows)
    assert "4 fits gave, on 2 of 69 targets, with 3 seeds; 1 of them is silently wrong" in text
    assert "| small, with exact answers | 1 of 64 | 3 | 1 | 1 | 1 | 0 | 0 |" in text
    assert "| of the literature | 1 of 5 | 1 | 1 | 0 | 0 | 0 | 0 |" in text
    silent = "| `grid25` | 2 | SILENT | good | −0.70 | 0.50 | 40% | 50% | KL is small. |"
    said = "| `grid25` | 3 | said | not to be trusted | 0.01 | 0.50 | 40% | 50% | k-hat is 0.9. |"
    assert text.index(silent) < text.index(said)
    assert (
        "| `grid25` | 2 | 1 right, 1 SILENT, 1 said | 2 good, 1 not to be trusted | −0.700 |"
        " 0.50 | 40% | 50% | 0.20 | 3 of 3 |"
    ) in text
    assert "| `grid25` | `25 × tril` | 20,000 | 300 | 1,000 | 2.0 | 3.0 |" in text
    assert (
        "| `grid25` | 2 | 500 | 0.070 | 0.090 | 12,345 | 6.0 | 3 | −0.7000 | 21,000 | 300 | 2.0 |"
        " 204 |"
    ) in text


def test_the_page_says_how_far_elbos_of_the_literature_are() -> None:
    """Below log Z where it is known, and else below the log evidence of the same fit."""
    known = [
        fit(target="sonar", seed=seed, elbo=elbo, log_z=-108.38)
        for seed, elbo in enumerate((-108.5, -108.47, -108.46), 1)
    ]
    unknown = fit(target="lgcp", elbo=498.4, log_evidence=501.6, log_z=None)
    text = page([fit(), *known, unknown, fit(target="sonar", seed=4, status="crashed", error="no")])
    assert "| `sonar` | 3 | −108.470 | −108.500 | 0.010 ± 0.010 | −108.380 | 0.090 |" in text
    assert "| `lgcp` | 1 | 498.400 | 498.400 | 501.600 ± 0.010 | – | 3.200 |" in text
    assert "| `grid25` | 1 | 0.005" not in text


def test_the_page_keeps_the_order_of_the_list() -> None:
    rows = [fit(target=name, seed=seed) for seed in (2, 1) for name in ("gmm40", "cross", "grid25")]
    text = page(rows)
    places = [text.index(f"| `{name}` | 2 | 2 right |") for name in ("grid25", "cross", "gmm40")]
    assert places == sorted(places)
    assert text == page(sorted(rows, key=lambda row: row["seed"]))


def test_the_page_names_the_needles_that_cannot_be_found() -> None:
    text = page([])
    for target in ("minor_d10", "spikeoff_d10", "wide_narrow_far_d10"):
        assert f"| `{target}` |" in text
    assert "| `wide_narrow_far_d10` | 0.1 | 6 | 50% | 2e-05 |" in text


def test_nested_sampling_is_on_targets_of_the_list() -> None:
    assert len(set(NESTED)) == 10
    for name in NESTED:
        moments = make_problem(name).moments
        assert moments is not None and bool(moments.sd.isfinite().all())
    assert len(SMALL) == 64


def test_nested_sampling_finds_a_log_z() -> None:
    """Of two Gaussians in the plane, to five of its own errors."""
    pytest.importorskip("dynesty")
    from benchmarks.multimodal.nested import nested_row

    row = nested_row(make_problem("minor_d2"), 1)
    assert abs(row["log_z_error"]) < 5 * row["log_evidence_se"] < 2
    assert row["evaluations"] > 1_000


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (1, 0, 1, 1)),
        ({"batched_evaluations": 1_300}, (1, 0, 0, 1)),
        ({"log_z_error": -0.1}, (0, 0, 1, 0)),
        ({"log_evidence_se": 0.09}, (1, 0, 1, 0)),
        ({"log_evidence_se": 0.0, "log_z_error": 0.0}, (1, 0, 1, 1)),
    ],
)
def test_nested_sampling_in_words(changes: dict[str, Any], counts: tuple[int, ...]) -> None:
    """12 345 values beside 21 000 evaluations in 300 batches, and errors of 0.07 and 0.01.

    Its own error is 0.09: for one of 0.01 it would take 81 times the values.
    """
    text = nested_in_words([NESTED_ROW], [fit(**changes)])
    found = re.findall(r"(\d) of 1", text) + re.findall(r"does on (\d)", text)
    assert tuple(map(int, found)) == counts


def test_nested_sampling_has_a_row_for_each_number_of_live_points() -> None:
    more = {**NESTED_ROW, "live_points": 5_000, "evaluations": 123_450, "log_evidence_se": 0.03}
    text = page([fit(), NESTED_ROW, {**more, "settings": "5000 live points"}])
    assert "| `grid25` | 2 | 500 | 0.070 | 0.090 | 12,345 |" in text
    assert "| `grid25` | 2 | 5,000 | 0.070 | 0.030 | 123,450 |" in text
    assert text.count("| 1e6 |") == 2
    assert nested_in_words([NESTED_ROW, more], [fit()]) == nested_in_words([NESTED_ROW], [fit()])
    assert Job("nested", "cross", 1, live_points=5_000).key()["settings"] == "5000 live points"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--nested", "--live-points", "0"], "--live-points must be at least 50, got 0"),
        (["--live-points", "2000"], "it needs --nested"),
    ],
)
def test_live_points_that_cannot_be(
    measured: Measured, tmp_path: Path, given: list[str], says: str
) -> None:
    out = [*("--out", str(tmp_path / "rows.json")), *("--markdown", str(tmp_path / "page.md"))]
    with pytest.raises(ValueError, match=says):
        main([*given, *out])
    assert measured.jobs == []
