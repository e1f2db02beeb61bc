"""What is measured, each in a process of its own, and what becomes of what fails."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

import pytest

from benchmarks.speed import jobs, whole, worker
from benchmarks.speed.clocks import Moment
from benchmarks.speed.jobs import Job, jobs_of, measured
from benchmarks.speed.methods import FITS, NUTS, STEPS, WHOLE, Method
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
        processes = [job for job in found[:half] if job.kind == "process"]
        assert len(processes) == sum(map(len, WHOLE.values()))

    def test_some_of_them(self) -> None:
        found = list(jobs_of(["step nfvi"], 1, "cuda", 100, 60.0))
        assert {(job.kind, job.device) for job in found} == {("step", "cuda")}
        on_a_gpu = {job.kind for job in jobs_of([""], 1, "cuda", 100, 60.0)}
        assert on_a_gpu == {"fit", "step"}

    def test_a_text_that_fits_none_of_them(self) -> None:
        with pytest.raises(ValueError, match="--only 'fit Pyro planar on' fits none of the meas"):
            list(jobs_of(["step nfvi", "fit Pyro planar on"], 1, "cpu", 100, 60.0))

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

    def test_a_whole_process_has_a_module_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def run(command: list[str], **_: Any) -> Any:
            asked.append(command[2])
            return subprocess.CompletedProcess(command, 0, '{"status": "ok"}')

        monkeypatch.setattr(subprocess, "run", run)
        measured(Job("process", "NumPyro BNAF", "pot1", 1))
        measured(Job("fit", "NumPyro BNAF", "pot1", 1))
        assert asked == ["benchmarks.speed.whole", "benchmarks.speed.worker"]


class TestWholeProcesses:
    def test_what_a_peer_does_not_need_is_taken_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of the process counts for nfvi, for others less the import of nfvi and torch."""
        clocks = iter([Moment(50.0, 20.0), Moment(50.0, 20.0)])
        monkeypatch.setattr(whole, "since_the_start", lambda: next(clocks))
        monkeypatch.setitem(FITS, "nfvi auto", Method(lambda *_: Steady([0.03])))
        monkeypatch.setitem(FITS, "NumPyro BNAF", Method(lambda *_: Steady([0.04])))
        ours = Moment(5.0, 2.0)
        own = whole.measured("nfvi auto", "pot1", 1, ours)
        assert own == {"wall_time": 50.0, "cpu_time": 20.0, "gap": 0.03}
        peer = whole.measured("NumPyro BNAF", "pot1", 1, ours)
        assert peer == {"wall_time": 45.0, "cpu_time": 18.0, "gap": 0.04}

    def test_each_method_is_known(self) -> None:
        names = {name for methods in WHOLE.values() for name in methods}
        assert names - set(FITS) == {"NumPyro NUTS"}
        assert all(
            FITS[name].takes(target)
            for target, methods in WHOLE.items()
            for name in methods
            if name in FITS
        )
