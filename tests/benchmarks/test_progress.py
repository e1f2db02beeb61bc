"""The bar of the benchmarks: on stderr, in a terminal alone, with the lines above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import exact_draws, potentials
from benchmarks.progress import say, with_bar
from models import pot1

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WITHOUT = {
    "benchmarks.languages.stan_nuts": "one run of Stan for benchmarks.languages, which has the bar",
    "benchmarks.posteriors.check_numpyro": "compares densities that are there, in seconds",
    "benchmarks.posteriors.numpyro_nuts": "imports neither torch nor nfvi",
    "benchmarks.rows": "one fit, which has a bar of its own",
    "benchmarks.speed.whole": "one measurement of benchmarks.speed, which has the bar",
    "benchmarks.speed.worker": "one measurement of benchmarks.speed, which has the bar",
}


def test_bar_counts_and_lines_stand_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in with_bar(range(3), "fits", name=lambda seed: f"seed {seed}", progress=True):
        say(f"KL of {seed}")
    out, err = capsys.readouterr()
    assert out == "KL of 0\nKL of 1\nKL of 2\n"
    assert "fits" in err and "2/3" in err and "seed 2" in err and "KL" not in err


def test_no_bar_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert [*with_bar(iter("ab"), "fits")] == ["a", "b"]
    say("done")
    assert capsys.readouterr() == ("done\n", "")


def test_a_run_that_ends_early_closes_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = with_bar(range(3), "fits", progress=True)
    assert [next(bar), next(bar)] == [0, 1]
    bar.close()
    say("interrupted")
    out, err = capsys.readouterr()
    assert "1/3" in err and err.endswith("\r") and out == "interrupted\n"


def test_fits_of_a_benchmark_have_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = potentials.NFVI.fit
    monkeypatch.setattr(
        potentials.NFVI, "fit", lambda *args, **how: fit(*args, steps=3, restarts=1, **how)
    )
    monkeypatch.setattr("benchmarks.progress.progress_wanted", lambda progress: True)
    potentials.potential(pot1, "planar*2", 2)
    out, err = capsys.readouterr()
    assert "pot1 planar*2" in err and "1/2" in err
    assert out.count("KL") == 3 and "\r" not in out


def commands() -> list[str]:
    """The modules that are started as commands."""
    return [
        ".".join(path.relative_to(BENCHMARKS.parent).with_suffix("").parts).removesuffix(
            ".__main__"
        )
        for path in sorted(BENCHMARKS.rglob("*.py"))
        if '__name__ == "__main__"' in path.read_text()
    ]


@pytest.mark.parametrize("name", commands())
def test_every_command_has_it(name: str) -> None:
    """By the helper, called by itself or by the module whose fits it makes."""
    path = BENCHMARKS.joinpath(*name.split(".")[1:])
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert (name in WITHOUT) != bool(called & {"with_bar", "potential"})
    assert exact_draws.with_bar is potentials.with_bar is with_bar
