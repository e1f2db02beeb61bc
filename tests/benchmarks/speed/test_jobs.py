"""What is measured, each in a process of its own, and what becomes of what fails."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

import pytest

from benchmarks.speed import jobs, worker
from benchmarks.speed.clocks import Moment
from benchmarks.speed.jobs import Job, jobs_of, measured
from benchmarks.speed.methods import FITS, NUTS, STEPS, Method
from benchmarks.speed.sampler_models import SAMPLED
from tests.benchmarks.speed.shared import Steady


class TestJobs:
    def test_methods_take_turns(self) -> None:
        found = list(jobs_of([""], 2, "cpu", 100, 60.0))
        half = len(found) // 2
        assert {job.seed for job in found[:half]} == {1} and {j.seed for j in found[half:]} == {2}
        keys = [json.dumps(job.key()) for job in found]
        assert len(set(keys)) == len(keys)
        kinds = {kind: [job for job in found[:half] if job.kind == kind] for kind in worker.MEASURE}
        assert len(kinds["step"]) == len(STEPS) * len(jobs.SIZES)
        assert len(kinds["nuts"]) == len(NUTS) * len(SAMPLED)

    def test_some_of_them(self) -> None:
        found = list(jobs_of(["step nfvi", "fit Pyro planar*8 on"], 1, "cuda", 100, 60.0))
        assert {(job.kind, job.device) for job in found} == {("step", "cuda")}
        assert not [j for j in jobs_of([""], 1, "cuda", 100, 60.0) if j.kind == "nuts"]

    def test_what_is_missing_is_a_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(*_: Any) -> Any:
            raise ModuleNotFoundError("No module named 'flowjax'", name="flowjax.flows")

        monkeypatch.setitem(FITS, "FlowJAX BNAF", Method(absent))
        found = worker.row_of(Job("fit", "FlowJAX BNAF", "pot1", 1))
        assert found["status"] == "not installed" and "flowjax" in found["error"]

    def test_a_missing_file_of_ours_is_no_missing_library(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(*_: Any) -> Any:
            raise ModuleNotFoundError("No module named 'nfvi.gone'", name="nfvi.gone")

        monkeypatch.setitem(FITS, "FlowJAX BNAF", Method(absent))
        with pytest.raises(ModuleNotFoundError):
            worker.row_of(Job("fit", "FlowJAX BNAF", "pot1", 1))

    def test_a_row_says_what_it_took(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(FITS, "nfvi auto", Method(lambda *_: Steady([0.2, 0.04, 0.001])))
        found = worker.row_of(Job("fit", "nfvi auto", "pot1", 1))
        assert found["status"] == "ok" and len(found["rungs"]) == 3
        assert found["load"] >= 0 and "nfvi" in found["environment"]
        monkeypatch.setitem(
            STEPS, "Pyro", lambda n, steps, device: [Moment(1e-3 * t, 2e-3 * t) for t in (1, 2, 9)]
        )
        found = worker.row_of(Job("step", "Pyro", "pot1", 1, 100))
        assert (found["ms"], found["cpu_ms"]) == (2.0, 4.0)

    @pytest.mark.parametrize(
        ("code", "out", "status"),
        [
            (0, 'a warning\n{"status": "ok", "ms": "inf"}\n', "ok"),
            (-9, "", "crashed"),
            (0, "", "crashed"),
        ],
    )
    def test_each_has_a_process(
        self, monkeypatch: pytest.MonkeyPatch, code: int, out: str, status: str
    ) -> None:
        def run(command: list[str], **options: Any) -> Any:
            assert command[0] == "python3" and options["env"]["OMP_NUM_THREADS"] == "1"
            assert Job(**json.loads(command[-1])) == job
            return subprocess.CompletedProcess(command, code, out)

        monkeypatch.setattr(subprocess, "run", run)
        job = Job("step", "Pyro", "pot1", 1, 100)
        found = measured(job, "python3")
        assert found["status"] == status and found["method"] == "Pyro"
        assert status != "ok" or found["ms"] == math.inf

    def test_one_that_takes_too_long_is_a_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(command: list[str], **options: Any) -> Any:
            raise subprocess.TimeoutExpired(command, options["timeout"])

        monkeypatch.setattr(subprocess, "run", run)
        found = measured(Job("step", "Pyro", "pot1", 1, 100), timeout=5.0)
        assert (found["status"], found["error"]) == ("stopped", "took over 5 s")
