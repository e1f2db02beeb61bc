"""The command line: it does what the API does, says what is wrong, and writes only where told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import nfvi
from models import eight_schools_noncentered
from nfvi import NFVI, Fit, LogDensity, compare
from nfvi.cli.app import app
from nfvi.cli.target import load_target
from nfvi.flows.registry import lookup, names

FEW = ("--steps", "20", "--n-mc", "16", "--restarts", "2", "--seed", "4", "--no-progress")
TARGETS = """
import torch
import nfvi

def log_p(z):
    return -0.5 * z.square().sum(-1)

def sample(n, generator, dtype, device):
    return torch.randn(n, 2, generator=generator, dtype=dtype, device=device)

normal = nfvi.LogDensity(log_p, 2, name="normal", sampler=sample)
number = 3

def needs(z):
    import helper_beside
    return log_p(z) * helper_beside.SCALE
"""


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run a command in a folder with a file of targets: (exit code, stdout, stderr)."""
    (tmp_path / "targets.py").write_text(TARGETS)
    (tmp_path / "helper_beside.py").write_text("SCALE = 2.0\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with pytest.raises(SystemExit) as stopped:
            app(list(args))
        return (stopped.value.code, *capsys.readouterr())

    return run


def log_p(z):
    return -0.5 * z.square().sum(-1)


PARAMETERS = """
import pyro.distributions as dist

def declared(tau=dist.HalfNormal(5.0), phi=(0, 6.28)):
    return -(phi - tau) ** 2

def plain(tau, phi):
    return -(phi - tau) ** 2

PARAMETERS = {"plain": {"tau": "positive", "phi": (0, 6.28)}}
"""


@pytest.mark.parametrize("name", ["declared", "plain"])
def test_a_function_of_named_parameters(cli, name):
    Path("named.py").write_text(PARAMETERS)
    code, out, _ = cli("fit", f"named.py:{name}", "scale-loc", "--out", "made", *FEW)
    assert code == 0 and name in out
    assert set(np.load("made/draws.npz")) >= {"tau", "phi"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = undefined", "'own.py' raised NameError while it was imported: .*undefined.*line 1"),
        (
            "PARAMETERS = {'tau': 'positive'}\ndef f(tau):\n    return -tau",
            "PARAMETERS beside 'f' must map names of functions.*its keys are 'tau'",
        ),
        (
            "import torch\ndef f(z):\n    return torch.from_numpy(-(z.numpy() ** 2).sum(-1))",
            r"'f' has values, and raised RuntimeError when its gradient.*\(own.py, line 3\)",
        ),
        (
            "import torch\ndef f(z):\n    return torch.where(z > 50, -z, -torch.inf).sum(-1)",
            "PARAMETERS = {'NAME': {'tau': 'positive'",
        ),
        ("def f(z):\n    return -(z[..., 0] ** 2)", r"leave it out, with --dim 1$"),
    ],
    ids=["import", "parameters", "numpy", "nowhere", "improper"],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line_or_two(cli, text, said):
    Path("own.py").write_text(text + "\n")
    code, _, err = cli("fit", "own.py:f", "loc", "--dim", "2", *FEW)
    assert code == 2 and re.search(said, err, re.MULTILINE) and len(err.splitlines()) <= 2
    assert "dim=" not in err and "parameters=" not in err


@pytest.mark.parametrize(
    ("formula", "calls", "said"),
    [
        ("loc", 12, r"KeyError in step \d+: 'late' \(late.py, line 6\)\. .*--checkpoint PATH"),
        ("auto", 12, r"the formula auto was broken off by its target\. KeyError: .*line 6\)$"),
        ("loc", 80, r"nfvi: KeyError: 'late' \(late.py, line 6\)$"),
        ("loc", 81, r"nfvi: ValueError: late \(late.py, line 6\)$"),
    ],
    ids=["fit", "climb", "afterwards", "of the kind that nfvi raises"],
)
def test_an_error_in_the_middle_has_its_line(cli, formula, calls, said):
    """A fit of 20 steps calls the function some sixty times, and its diagnostics go on."""
    kind = "ValueError" if calls == 81 else "KeyError"
    Path("late.py").write_text(
        f"CALLS = []\ndef f(z):\n    CALLS.append(0)\n    if len(CALLS) > {calls}:\n"
        f"        # after a while\n        raise {kind}('late')\n"
        "    return -(z**2).sum(-1)\n"
    )
    few = () if formula == "auto" else FEW
    code, _, err = cli("fit", "late.py:f", formula, "--dim", "2", "--no-progress", *few)
    assert code == 1 and re.search(said, err, re.MULTILINE)
    assert "Traceback" not in err and "--traceback" in err
    assert "error.guide" not in err and "NFVI" not in err


def test_a_log_density_without_its_dimension(cli):
    code, _, err = cli("fit", "targets.py:log_p", "loc", *FEW)
    assert code == 2 and "targets.py:log_p takes an argument" in err and "--dim 2" in err


def without_seconds(text):
    """A fit in words, less the line with the wall time."""
    return [line for line in text.splitlines() if "gradients of the target" not in line]


def test_version(cli):
    assert cli("--version") == (0, f"nfvi {nfvi.__version__}\n", "")


def test_a_start_is_found_first(cli):
    code, out, _ = cli("fit", "targets.py:normal", "loc", "--init", "gaussian", *FEW)
    assert code == 0
    assert "  init gaussian, 20 steps of 16 draws" in out


def test_a_fit_without_a_knob(cli):
    words = ("--lr", "auto", "--n-mc", "auto", "--steps", "auto", "--anneal", "adaptive")
    args = ("--init", "zeros", *words, "--restarts", "1", "--seed", "4", "--no-progress")
    code, out, _ = cli("fit", "targets.py:normal", "loc", *args)
    assert code == 0 and "converged" in out


def test_a_formula_is_found(cli, tmp_path):
    args = ("targets.py:normal", "auto", "--budget", "60", "--seed", "4", "--no-progress")
    code, out, _ = cli("fit", *args, "--out", "out")
    assert code == 0
    assert "(the formula was found by the climb below)" in out
    loaded = Fit.load(tmp_path / "out" / "fit.safetensors")
    assert str(loaded.formula) in ("scale-loc", "tril")
    assert loaded.path.reason in " ".join(out.split())
    # No optimiser steps, and no guide before the fit.
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {"fit.safetensors", "draws.npz", "summary.txt", "target.png", "report.html"}
    assert names == files


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["auto", "--steps", "20"], "--steps is chosen by auto: leave it out, or name a formula"),
        (["--n-mc", "20"], "--n-mc is chosen by auto"),
        (["--base", "laplace"], "--base is chosen by auto"),
        (["auto", "--budget", "0"], "--budget takes seconds over 0, got 0"),
        (["auto", "--checkpoint", "x"], "leave --checkpoint out"),
        (["auto", "--checkpoint", "x", "--resume"], "auto keeps no checkpoint"),
        (["loc", "--budget", "3"], "--budget is for the formula auto"),
    ],
)
def test_what_auto_does_not_take(cli, args, said):
    code, out, err = cli("fit", "targets.py:normal", *args)
    assert code == 2 and said in err and not out


def test_without_a_formula_one_is_found(cli):
    code, out, _ = cli("fit", "targets.py:normal", "--seed", "4", "--no-progress")
    assert code == 0 and "(the formula was found by the climb below)" in out


def test_advice_is_in_the_words_of_a_shell(cli):
    """And the warning of a fit that is not to be trusted is left to the verdict."""
    args = ("fit", "targets.py:log_p", "scale", "--dim", "9", "--jitter", "2", *FEW)
    code, out, err = cli(*args, "--weighted", "--draws", "9", "--out", "o")
    said = " ".join(out.partition("written:")[0].split())
    assert code == 0 and err == "" and "Verdict: not to be trusted." in said
    assert "Try the formula auto, more layers" in said and '(--base "studentt(df=5)"' in said
    report = Path("o/report.html").read_text(encoding="utf-8")
    assert "Try the formula auto" in report
    for text in (said, report):
        assert not [word for word in ("NFVI(", "fit.refine", "fit.sam", "base=") if word in text]
    fit = Fit.load("o/fit.safetensors", target=LogDensity(log_p, 9))
    drawn = fit.importance_resample(9, seed=4)
    np.testing.assert_array_equal(np.load("o/draws.npz")["z"], drawn)


def test_flows_are_those_of_the_registry(cli):
    code, out, _ = cli("flows")
    entries = [" ".join(text.split()) for text in re.split(r"^(?=\S)", out, flags=re.M)[1:]]
    specs = {name: lookup(name) for name in names() if lookup(name).name == name}
    assert code == 0
    assert len(entries) == len(specs)
    assert max(map(len, out.splitlines())) <= 80
    for entry, (name, spec) in zip(entries, specs.items(), strict=True):
        assert entry.startswith(f"{name} ")
        assert " ".join(spec.help.split()) in entry
        assert all(str(option) in entry for option in spec.options.values())
        assert all(alias in entry for alias in spec.aliases)


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ("--show-completion bash", {}, "_NFVI_COMPLETE=complete_bash"),
        ("", {"_NFVI_COMPLETE": "complete_bash", "COMP_WORDS": "nfvi fit-", "COMP_CWORD": "1"},
         "fit-data"),
    ],
)  # fmt: skip
def test_completion_of_a_shell(words, environment, said):
    """The script that a shell installs, and what it is then told."""
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **environment}
    run = subprocess.run(
        [sys.executable, "-c", "from nfvi.cli import app; app(prog_name='nfvi')", *words.split()],
        env=os.environ | named, capture_output=True, text=True,
    )  # fmt: skip
    assert said in run.stdout


def test_traceback_ends_in_the_users_function(cli):
    Path("own.py").write_text(
        "def f(z):\n    return helper(z)\n\ndef helper(z):\n    return z / {}\n"
    )
    args = ("fit", "own.py:f", "loc", "--dim", "2", *FEW)
    code, _, short = cli(*args)
    assert code == 2 and "Traceback" not in short and "--traceback" in short
    code, _, whole = cli(*args, "--traceback")
    assert code == 2 and "in helper" in whole and "return z / {}" in whole
    assert whole.splitlines()[-1].startswith("nfvi: ")


def test_help_lists_every_option_of_a_fit(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = cli("fit", "--help")
    assert code == 0
    for name in ("dim", "base", "jitter", "seed", "dtype", "device", "steps", "n-mc", "restarts",
                 "anneal", "gradient", "lr", "nuts", "draws", "warmup", "chains", "jobs", "out",
                 "no-progress", "checkpoint", "resume"):  # fmt: skip
        assert f"--{name}" in out


def test_a_fit_is_that_of_the_api_and_writes_nothing(cli, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = cli("fit", "targets.py:normal", "planar*2", *FEW)
    with load_target("targets.py:normal") as target:
        fit = NFVI("planar*2", seed=4).fit(target, steps=20, n_mc=16, restarts=2)
    assert code == 0
    said = fit.describe(shell=True)
    assert without_seconds(out) == [*without_seconds(said), "", f"Verdict: {fit.verdict.word}."]
    after = [path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)]
    assert sorted(after) == before


def test_every_option_acts(cli):
    options = ("--base", "laplace", "--jitter", "0.3", "--dtype", "float64", "--device", "cpu",
               "--anneal", "0.5,0", "--gradient", "total", "--lr", "0.1", "--dim", "3")  # fmt: skip
    code, _, _ = cli("fit", "targets.py:log_p", "loc-scale", *FEW, *options, "--out", "o")
    with load_target("targets.py:log_p") as target:
        fit = NFVI(
            "loc-scale", base="laplace", jitter=0.3, seed=4, dtype=torch.float64, device="cpu"
        ).fit(
            target, dim=3, steps=20, n_mc=16, restarts=2, anneal=[0.5, 0], gradient="total", lr=0.1
        )
    assert code == 0
    loaded = Fit.load("o/fit.safetensors")
    assert {**loaded.settings, "lengths": (10, 0)} == fit.settings
    assert loaded.settings["lengths"] == [10, 0]
    for name, value in fit.guide.state_dict().items():
        assert torch.equal(loaded.guide.state_dict()[name], value)


def test_out_holds_the_fit_its_draws_and_its_pictures(cli, tmp_path):
    code, out, _ = cli("fit", "targets.py:normal", "loc", *FEW, "--draws", "30", "--out", "a/b")
    folder = tmp_path / "a" / "b"
    assert code == 0
    files = {"fit.safetensors", "draws.npz", "summary.txt", "history.png", "starting.png",
             "target.png", "report.html"}  # fmt: skip
    assert {path.name for path in folder.iterdir()} == files
    assert all(f"a/b/{name}" in out for name in files)
    assert all((folder / f).read_bytes()[:4] == b"\x89PNG" for f in files if f.endswith(".png"))
    fit = Fit.load(folder / "fit.safetensors")
    with np.load(folder / "draws.npz") as draws:
        np.testing.assert_array_equal(draws["z"], fit.sample(30, seed=4))
    assert "<h1>loc on normal</h1>" in (folder / "report.html").read_text(encoding="utf-8")
    assert out.startswith((folder / "summary.txt").read_text())


def test_a_report_has_the_gradients_and_what_verify_says(cli):
    few = [word if word != "20" else "60" for word in FEW]
    code, out, _ = cli("fit", "targets.py:normal", "loc", *few, "--verify", "--out", "o")
    assert code == 0 and "chains of" in out and "HMC iterations" in out
    report = Path("o/report.html").read_text(encoding="utf-8")
    assert "<h2>Gradients by flow</h2>" in report and "<h2>Verification</h2>" in report
    assert "HMC iterations" in Path("o/summary.txt").read_text()
    code, out, _ = cli("fit", "targets.py:normal", "loc", *few, "--out", "p")
    assert "HMC iterations" not in out


def test_the_last_line_is_the_verdict(cli):
    """On stdout, whatever else is printed; scripts read it."""
    few = ("--draws", "8", "--warmup", "8", "--chains", "1", "--nuts", "--out", "o")
    code, out, _ = cli("fit", "targets.py:normal", "loc", *FEW, *few)
    assert code == 0
    with load_target("targets.py:normal") as target:
        word = Fit.load("o/fit.safetensors", target=target).verdict.word
    assert out.splitlines()[-1] == f"Verdict: {word}." and "written:" in out


def test_nuts_beside_the_fit(cli, tmp_path):
    sampling = ("--nuts", "--draws", "20", "--warmup", "20", "--chains", "2")
    code, out, _ = cli("fit", "targets.py:normal", "loc", *FEW, *sampling, "--out", "o")
    assert code == 0
    assert {"nuts.npz", "table.txt", "comparison.png"} <= {
        p.name for p in (tmp_path / "o").iterdir()
    }
    with load_target("targets.py:normal") as target:
        run = nfvi.nuts(target, draws=20, warmup=20, chains=2, seed=4, progress=False)
        table = str(compare(Fit.load("o/fit.safetensors", target=target), run, seed=4))
    with np.load(tmp_path / "o" / "nuts.npz") as draws:
        np.testing.assert_array_equal(draws["z"], run.draws)
    # What the seconds bought differs from run to run; the means and distances do not.
    written = (tmp_path / "o" / "table.txt").read_text()
    assert written.split("sliced Wasserstein")[1] == table.split("sliced Wasserstein")[1] + "\n"
    assert written.strip() in out
    assert "<h2>Beside NUTS</h2>" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_chains_side_by_side_are_the_same(cli, tmp_path):
    """Of a function of a file, which no other process knows by its name."""
    (tmp_path / "by_a_helper.py").write_text(
        "def half_square(z):\n    return -0.5 * z.square().sum(-1)\n\n"
        "def log_p(z):\n    return half_square(z / 2)\n"
    )
    sampling = ("--nuts", "--draws", "20", "--warmup", "20", "--chains", "2")
    runs = []
    for jobs, folder in (("1", "one"), ("2", "two")):
        there = ("by_a_helper.py:log_p", "loc", "--dim", "2", "--out", folder, "--jobs", jobs)
        code, _, err = cli("fit", *there, *FEW, *sampling)
        assert code == 0, err
        with np.load(tmp_path / folder / "nuts.npz") as draws:
            runs.append(draws["z"])
    np.testing.assert_array_equal(*runs)


def test_more_jobs_need_joblib(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    code, out, err = cli("fit", "targets.py:normal", "loc", "--nuts", "--jobs", "2", *FEW)
    assert code == 2 and "pip install 'nfvi[jobs]'" in " ".join(err.split()) and not out


def test_without_jinja_there_is_no_report(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, out, err = cli("fit", "targets.py:normal", "loc", *FEW, "--out", "o")
    assert code == 0 and "nfvi: no report, since reports need Jinja2" in err
    assert (tmp_path / "o" / "target.png").exists() and "report.html" not in out
    assert not (tmp_path / "o" / "report.html").exists()


def test_a_model_comes_back_by_site(cli):
    code, out, _ = cli(
        "fit", "models:eight_schools_noncentered", "scale-loc", *FEW, "--draws", "9", "--out", "o"
    )
    assert code == 0
    assert all(name in out for name in ("mu", "tau", "eta[7]", "theta[0]"))
    assert Path("o/posterior.png").exists()
    assert not Path("o/target.png").exists()
    with np.load("o/draws.npz") as draws:
        assert {k: draws[k].shape for k in draws} == {
            "mu": (9,), "tau": (9,), "eta": (9, 8), "theta": (9, 8),
        }  # fmt: skip
        fit = Fit.load("o/fit.safetensors", target=eight_schools_noncentered)
        np.testing.assert_array_equal(draws["tau"], fit.sample(9, seed=4)["tau"])


def test_a_fit_goes_on_from_its_checkpoint(cli, tmp_path):
    args = ("fit", "targets.py:normal", "planar", "--checkpoint", "c.ckpt", "--no-progress")
    assert cli(*args, *FEW)[0] == 0
    code, out, _ = cli(*args, "--resume", "--out", "o")
    assert code == 0
    with load_target("targets.py:normal") as target:
        fit = NFVI("planar", seed=4).fit(target, steps=20, n_mc=16, restarts=2)
    assert without_seconds(out)[:3] == without_seconds(str(fit))[:3]
    assert cli(*args[:2], *args[3:], "--resume")[0] == 0
    assert "starting.png" not in {path.name for path in (tmp_path / "o").iterdir()}
    assert cli(*args[:2], "radial", *args[3:], "--resume")[::2] == (
        2, "nfvi: the checkpoint is of 'planar', not 'radial'\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["targets.py:normal", "planer*8"], "did you mean 'planar'?\n    planer*8\n    ^"),
        (["targets.py:normal", "loc", "--base", "cauchy"], "cauchy"),
        (["targets.py:norml"], "'targets.py' has no 'norml'; did you mean 'normal'?"),
        (["nothere.py:f"], "no file 'nothere.py'"),
        (["nothere.deep:f"], "there is no module 'nothere'"),
        (["wrong.py:f"], "wrong.py, line 1: "),
        (["targets.py"], "write path/to/file.py:name or package.module:name"),
        (["targets.py:number"], "a target is a function log p(z)"),
        (["targets.py:normal", "loc", "--dim", "3"], "dim=3 was given, but 'normal' has dim=2"),
        (["targets.py:log_p", "loc", "--dim", "1" + 15 * "0"], "GB of memory or more, and this"),
        (["targets.py:normal", "loc", "--steps", "0"], "steps must be an integer of at least 1"),
        (["targets.py:normal", "loc", "--steps", "x"], "--steps takes a whole number or auto"),
        (["targets.py:normal", "loc", "--n-mc", "2.5"], "--n-mc takes a whole number or auto"),
        (["targets.py:normal", "loc", "--lr", "fast"], "--lr takes a number or auto, got 'fast'"),
        (
            ["targets.py:normal", "loc", "--init", "centre"],
            "--init takes auto, gaussian, laplace, pathfinder or zeros, got 'centre'",
        ),
        (["targets.py:normal", "loc", "--lr", "-1"], "lr must be a positive number"),
        (["targets.py:normal", "loc", "--anneal", "x"], "--anneal takes a fraction"),
        (["targets.py:normal", "loc", "--anneal", "2"], "fractions of the steps from 0 to 1"),
        (["targets.py:normal", "loc", "--gradient", "x"], 'gradient must be "path" or "total"'),
        (["targets.py:normal", "loc", "--dtype", "int8"], "--dtype takes float32 or float64"),
        (["targets.py:normal", "loc", "--device", "abacus"], "--device 'abacus' is none"),
        (["targets.py:normal", "loc", "--draws", "7"], "draws must be an integer of at least 8"),
        (
            ["targets.py:normal", "loc", "--nuts", "--jobs", "0"],
            "--jobs takes a number of processes, or -1 for one on each CPU, got 0",
        ),
        (
            ["targets.py:normal", "loc", "--nuts", "--jobs", "-2"],
            "--jobs takes a number of processes, or -1 for one on each CPU, got -2",
        ),
        (["targets.py:normal", "loc", "--jobs", "2"], "--jobs is for the chains of NUTS"),
        (["targets.py:normal", "loc", "--weighted"], "it needs --out DIR"),
        (["targets.py:normal", "loc", "--resume"], "--resume needs --checkpoint PATH"),
        (["targets.py:normal", "--resume", "--checkpoint", "no.ckpt"], "no file 'no.ckpt'"),
        (["targets.py:normal", "--resume", "--checkpoint", "c", "--seed", "1"], "--seed is fixed"),
    ],
)
def test_mistakes_are_one_message_and_code_2(cli, tmp_path, args, said):
    code, out, err = cli("fit", *args)
    assert code == 2
    assert out == ""
    assert err.startswith("nfvi: ")
    assert said in err
    assert "Traceback" not in err


def test_a_missing_argument_is_a_mistake_in_usage(cli):
    code, _, err = cli("fit")
    assert code == 2
    assert "TARGET" in err


def test_out_that_is_a_file_fails_before_the_fit(cli, tmp_path):
    (tmp_path / "taken").write_text("")
    code, out, err = cli("fit", "targets.py:normal", "--out", "taken")
    assert (code, out) == (1, "")
    assert "taken" in err


def test_a_fit_that_fails_has_code_1(cli, tmp_path):
    (tmp_path / "cliff.py").write_text(
        "calls = []\n\ndef f(z):\n    calls.append(1)\n"
        "    early = bool(z.isnan().any()) or len(calls) < 12\n"
        "    return -0.5 * (z**2).sum(-1) * (1.0 if early else float('nan'))\n"
    )
    # It reads values, so that it is not traced and called at every step.
    args = ("--dim", "2", "--steps", "290", "--n-mc", "8", "--restarts", "1", "--no-progress")
    code, out, err = cli("fit", "cliff.py:f", "loc", *args)
    assert (code, out) == (1, "")
    assert err.startswith("nfvi: ")
    assert "step" in err
    assert "Traceback" not in err


def test_without_matplotlib_the_rest_is_written(cli, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("nfvi.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = cli("fit", "targets.py:normal", "loc", *FEW, "--out", "o")
    assert code == 0
    assert "no figures and no report" in err
    assert "nfvi[plots]" in err
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "fit.safetensors", "draws.npz", "summary.txt",
    }  # fmt: skip


@pytest.mark.process_wide
def test_ctrl_c_keeps_the_fit(cli, tmp_path):
    (tmp_path / "stops.py").write_text(
        "import signal\ncalls = []\n\ndef f(z):\n    calls.append(1)\n"
        "    if len(calls) == 12:\n        signal.raise_signal(signal.SIGINT)\n"
        "    return -0.5 * (z**2).sum(-1)\n"
    )
    before = signal.getsignal(signal.SIGINT)
    # Steps of longer fits are traced, and would not call f.
    args = ("--dim", "2", "--steps", "90", "--n-mc", "8", "--restarts", "1", "--no-progress")
    code, out, _ = cli("fit", "stops.py:f", "loc", *args, "--nuts", "--out", "o")
    assert code == 130
    assert "interrupted" in out
    assert 0 < Fit.load("o/fit.safetensors").steps < 12
    assert not (tmp_path / "o" / "nuts.npz").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_target_may_import_what_lies_beside_it(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    before = sys.path.copy()
    with load_target(str(tmp_path / "targets.py") + ":needs") as fn:
        target = LogDensity(fn, 2)
        assert float(target.log_prob(torch.ones(1, 2))) == -2.0
    assert sys.path == before
    sys.modules.pop("helper_beside")


def test_a_file_of_a_package_is_imported_as_a_part_of_it(cli, tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "deep.py").write_text(
        "from pack import __name__ as home\n\ndef f(z): ...\n"
    )
    with load_target("pack/deep.py:f") as fn:
        assert fn.__module__ == "pack.deep"
    for name in ("pack", "pack.deep"):
        sys.modules.pop(name)


def test_a_target_that_changes_the_folder_loses_nothing(cli, tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "moves.py").write_text(
        "import os\nos.chdir('away')\n\ndef f(z):\n    return -0.5 * (z**2).sum(-1)\n"
    )
    args = ("--dim", "2", *FEW, "--draws", "9", "--checkpoint", "c.ckpt", "--out", "a/b")
    code, out, _ = cli("fit", "moves.py:f", "loc", *args)
    assert code == 0
    assert "  a/b/fit.safetensors" in out.splitlines()
    assert Fit.load(tmp_path / "a" / "b" / "fit.safetensors").steps == 20
    assert (tmp_path / "c.ckpt").is_file()
    assert not list((tmp_path / "away").iterdir())


def test_a_failed_run_leaves_no_empty_folder_and_takes_none_away(cli, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "half").mkdir()
    for folder in ("own", "new", "half/new/deep"):
        code, _, err = cli("fit", "targets.py:number", "loc", "--out", folder)
        assert code == 2 and "a target is a function" in err
    assert list((tmp_path / "own").iterdir()) == list((tmp_path / "half").iterdir()) == []
    assert not (tmp_path / "new").exists()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    assert cli("fit", "nothere.py:f", "--out", "own")[0] == 2
    assert (tmp_path / "own" / "notes.txt").read_text() == "mine"
