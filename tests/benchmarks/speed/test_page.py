"""What benchmarks/speed makes of its rows, and that its command goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import jobs
from benchmarks.speed.__main__ import main
from benchmarks.speed.jobs import Job
from benchmarks.speed.methods import STEPS
from benchmarks.speed.page import page

PLACE = "2026-01-02, a CPU, 2 cores, 1 torch threads, Python 3.11.7, nfvi 0.2.0, torch 2.13.0"


GONE = {"status": "not installed", "error": "numpyro is not installed"}


def done(job: Job, **values: Any) -> dict[str, Any]:
    return {**job.key(), "status": "ok", "load": 3.0, "environment": PLACE, **values}


def fit_row(method: str, seed: int, *gaps: float) -> dict[str, Any]:
    rungs = [
        {"steps": 250 * 2**i, "gap": gap, "wall_time": 2.0 + i, "cpu_time": 1.5, "compiling": 0.5}
        for i, gap in enumerate(gaps)
    ]
    return done(Job("fit", method, "pot1", seed), rungs=rungs)


class TestPage:
    def rows(self) -> list[dict[str, Any]]:
        missing = {**Job("fit", "FlowJAX BNAF", "pot1", 1).key(), "status": "not installed"}
        chains = {"ess": 400.0, "wall_time": 8.0, "cpu_time": 10.0, "compiling": 4.0}
        return [
            fit_row("nfvi planar*8", 1, 0.2, 0.03),
            fit_row("nfvi planar*8", 2, 0.2, 0.04),
            fit_row("nfvi planar*8", 3, 0.2, 0.3),
            fit_row("Pyro IAF*2", 1, 0.7, 0.69),
            {**missing, "error": "flowjax is not installed"},
            *(
                done(Job("step", "Pyro", "pot1", s, 100), ms=2.0 * s**2, cpu_ms=float(s**2))
                for s in (1, 2, 3)
            ),
            done(Job("nuts", "NumPyro", "eight schools", 1, 500), **chains),
            *(
                done(
                    Job("process", name, "pot1", s), cpu_time=s * cpu, wall_time=9.0, gap=0.001 * s
                )
                for name, cpu in (("nfvi auto", 1.5), ("NumPyro BNAF", 6.0))
                for s in (1, 2, 3)
            ),
            {**Job("process", "NumPyro NUTS", "eight schools", 1).key(), **GONE},
            done(Job("process", "nfvi auto", "eight schools", 1), cpu_time=4, wall_time=5, gap=0.0),
        ]

    def test_where_a_few_of_the_repeats_came_near(self) -> None:
        rows = [fit_row("FlowJAX planar*8", k, *[0.5] * 6, gap) for k, gap in ((1, 0.04), (2, 0.3))]
        assert "| FlowJAX planar*8 | not in 16 000, but in 1 of 2 | – | – |" in page(rows)

    def test_medians_and_what_was_not_reached(self) -> None:
        text = page(self.rows())
        assert "| nfvi planar*8 | 500 (1 of 3 did not) | 2.5 | 3.0 | 1.5 | 0.040 |" in text
        assert "| Pyro IAF*2 | not in 500 | – | – | – | 0.690 |" in text
        assert "| nfvi planar*8 | not in 500 | – | – | – | 0.040 |" in text
        assert "| FlowJAX BNAF | not installed: flowjax is not installed |" in text
        assert "| Pyro | 4 / 8 | not run | not run | not run |" in text
        assert "| eight schools | NumPyro | 4 × 500 | 400 | 8 | 50 | 100 | 40 |" in text
        assert (
            "1 to 3 repeats of fits, 3 repeats of steps, 1 repeat of NUTS, 1 to 3 repeats of whole"
            " processes. The load"
        ) in text
        assert "3.0 in the median" in text and "torch 2.13.0" in text

    def test_whole_processes_beside_numpyro(self) -> None:
        text = page(self.rows())
        assert "| pot1 | nfvi auto | KL 0.0020, at most 0.0030 | 3.0 | 9.0 | 0.25 × |" in text
        assert "| pot1 | NumPyro BNAF | KL 0.0020, at most 0.0030 | 12.0 | 9.0 | 1.00 × |" in text
        assert "| eight schools | nfvi auto | KL 0.0000 | 4.0 | 5.0 | – |" in text
        assert "| NumPyro NUTS | not installed: numpyro is not installed |" in text

    def test_a_page_of_nothing(self) -> None:
        assert "Nothing has been measured yet" in page([])

    def test_a_gpu_has_its_own_tables(self) -> None:
        rows = [*self.rows(), done(Job("step", "Pyro", "pot1", 1, 100, "cuda"), ms=0.5, cpu_ms=0.4)]
        text = page(rows)
        assert "On `cuda`." in text and "| Pyro | 0.4 / 0.5 |" in text
        assert text.count("Not measured yet") == 1 and text.count("## NUTS") == 1

    def test_the_command_goes_on_and_writes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Job] = []

        def measure(job: Job, python: str) -> dict[str, Any]:
            asked.append(job)
            if job.method == "FlowJAX":
                error = {"status": "not installed", "error": "flowjax is not installed"}
                return {**job.key(), **error}
            return done(job, ms=1.0, cpu_ms=1.0)

        monkeypatch.setattr("benchmarks.speed.__main__.measured", measure)
        out, written = tmp_path / "rows.json", tmp_path / "speed.md"
        command = ["--out", str(out), "--markdown", str(written), "--repeats", "1"]
        run: Callable[..., None] = lambda *more: main([*command, *more])  # noqa: E731
        run("--only", "step")
        assert len(asked) == len(STEPS) * len(jobs.SIZES)
        run("--page")
        first = written.read_text()
        assert "not installed" in first
        asked.clear()
        run("--only", "step")  # what is missing may be there by now
        assert {job.method for job in asked} == {"FlowJAX"} and written.read_text() == first
