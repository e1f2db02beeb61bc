"""``fit.report(path)``: every part that there is, in one file that a browser opens."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from nfvi import NFVI, Fit, GradientTracker, LogDensity, MCMCRun, TargetError, compare, nuts

NAME = "<script>alert(1)</script>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


def log_p(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(-1)


TARGET = LogDensity(log_p, 2, name=NAME)
TRACKER = GradientTracker(every=2)


@pytest.fixture(scope="module")
def fit() -> Fit:
    start = NFVI("planar-scale-loc", seed=1)
    found = start.fit(TARGET, steps=40, n_mc=32, restarts=2, progress=False, callbacks=[TRACKER])
    found.verify(chains=100)
    return found


@pytest.fixture(scope="module")
def run() -> MCMCRun:
    return nuts(TARGET, draws=50, warmup=50, chains=2, seed=1, progress=False)


@pytest.fixture(scope="module")
def whole(fit: Fit, run: MCMCRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all that a fit of a named formula can have."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    fit.report(path, compare=run, tracker=TRACKER)
    return path


def titles(path: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", path.read_text(encoding="utf-8"))


def test_every_part(whole: Path, fit: Fit) -> None:
    assert titles(whole) == [
        "Verdict", "Summary", "Posterior", "Course of the fit", "Gradients by flow",
        "Importance weights", "Verification", "Missed mass", "Beside NUTS", "Settings", "Versions",
    ]  # fmt: skip
    page = whole.read_text(encoding="utf-8")
    assert f"<strong>Verdict: {fit.verdict.word}.</strong>" in page
    assert all(f"<p>{html.escape(words)}</p>" in page for words in fit.verdict.reasons)
    assert page.count("data:image/png;base64,") == 8
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert f">{fit.summary().loc['z[1]', 'sd']:#.4g}<" in page


def test_the_weights_are_those_of_the_diagnostics(fit: Fit) -> None:
    assert fit.weighted_draws(fit.diagnostics.draws, seed=fit.seed + 1).khat == fit.khat


def test_the_numbers_beside_chains(fit: Fit, run: MCMCRun, tmp_path: Path) -> None:
    """And a comparison that was made already is taken as it is."""
    made = compare(fit, run, draws=100, seed=1)
    fit.report(tmp_path / "r.html", compare=made)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    rows = {row.name: row for row in fit._beside(run).table}
    assert set(rows) == {row.name for row in made.table}
    for row in made.table:
        assert rows[row.name].right.mean == pytest.approx(row.right.mean, rel=1e-5)
        assert rows[row.name].right.sd == pytest.approx(row.right.sd, rel=1e-5)
        assert f">{row.mean_difference:.3f}<" in page and f">{row.sd_ratio:.3f}<" in page


def test_a_run_of_another_dimension_is_refused(fit: Fit, tmp_path: Path) -> None:
    other = nuts(LogDensity(log_p, 3), draws=4, warmup=4, chains=1, seed=1, progress=False)
    with pytest.raises(TargetError, match="of 3 dimensions, and the fit has 2"):
        fit.report(tmp_path / "r.html", compare=other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["compare", "tracker"])
def test_what_is_nothing_to_stand_beside_a_fit_is_refused(
    fit: Fit, tmp_path: Path, name: str
) -> None:
    with pytest.raises(TypeError, match=rf"{name}= takes .*; got int"):
        fit.report(tmp_path / "r.html", **{name: 3})


def test_a_folder_that_is_not_there_is_told_before_any_work(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfvi.fit.fit.fit_report", lambda *_: pytest.fail("work was done"))
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        fit.report(tmp_path / "nowhere" / "r.html")


def test_a_climb_has_its_rungs(tmp_path: Path) -> None:
    found = NFVI(seed=1).fit(TARGET, budget=60, progress=False)
    found.report(tmp_path / "r.html")
    assert "Rungs of the climb" in titles(tmp_path / "r.html")
    assert str(found.path).splitlines()[-1] in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_without_the_target_there_is_less(fit: Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit")
    loaded = Fit.load(tmp_path / "fit")
    loaded.report(tmp_path / "r.html")
    assert titles(tmp_path / "r.html") == [
        "Verdict", "Summary", "Course of the fit", "Missed mass", "Settings", "Versions",
    ]  # fmt: skip
    loaded._diagnostics = None
    loaded.report(tmp_path / "r.html")
    assert "load the fit with target=" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_fit_that_is_not_to_be_trusted_does_not_warn_and_will(tmp_path: Path) -> None:
    start = NFVI("scale", jitter=3.0, seed=4)
    found = start.fit(log_p, dim=9, steps=2, n_mc=16, restarts=1, progress=False)
    assert found.verdict.word == "not to be trusted"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.report(tmp_path / "r.html")
    with pytest.warns(UserWarning, match="not to be trusted"):
        found.summary(10)


def test_draws_without_weights_have_words_in_place_of_a_picture(tmp_path: Path) -> None:
    edge = [-1e3]

    def beyond(z: Tensor) -> Tensor:
        return torch.where(z[:, 0] > edge[0], log_p(z), -torch.inf)

    nowhere = LogDensity(beyond, 2, name="nowhere")
    nowhere.log_prob(torch.zeros(1, 2))  # it is checked at its first use
    edge[0] = 1e3
    made = NFVI("loc", seed=1).fit(TARGET, steps=2, restarts=1, progress=False)
    made.target = nowhere
    made.report(tmp_path / "r.html")
    assert "0 draws have a weight" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(whole: Path, fit: Fit, run: MCMCRun) -> dict[str, tuple[Path, int]]:
    """The reports of all kinds, with the number of their pictures."""
    folder = whole.parent
    x = np.random.default_rng(0).normal(size=(60, 5))
    names = [f"column {i} with a long name" for i in range(5)]
    for width in (2, 5):
        table = pd.DataFrame(x[:, :width], columns=names[:width])
        found = NFVI("scale-loc", seed=1).fit_data(table, epochs=3, progress=False)
        found.report(folder / f"{width}.html", table)
    compare(fit, run, draws=100, seed=1).report(folder / "comparison.html")
    return {
        "Fit": (whole, 8),
        "DensityFit": (folder / "2.html", 2),
        "DensityFit, d = 5": (folder / "5.html", 2),
        "Comparison": (folder / "comparison.html", 1),
    }


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["Fit", "DensityFit", "DensityFit, d = 5", "Comparison"])
def test_in_a_browser_all_is_seen_and_nothing_is_wider_than_the_window(
    pages: dict[str, tuple[Path, int]], tmp_path: Path, name: str, width: int
) -> None:
    """In a frame of that width, as a window has a least one of its own; names take one line."""
    probe = """<script>addEventListener("load", () => parent.document.title = [
    innerWidth, document.documentElement.scrollWidth, document.images.length,
    [...document.images].filter(i => i.naturalWidth > 100 && i.clientWidth <= innerWidth).length,
    Math.max(...[...document.querySelectorAll("section > div td:first-child")].map(cell => {
        const text = document.createRange(); text.selectNodeContents(cell);
        return text.getClientRects().length; })),
    ].join(" "))</script>"""
    path, count = pages[name]
    shown = html.escape(path.read_text(encoding="utf-8") + probe)
    page = tmp_path / "frame.html"
    page.write_text(
        f'<meta charset="utf-8"><title></title><iframe width="{width}" height="3000"'
        f' style="border:0" srcdoc="{shown}"></iframe>',
        encoding="utf-8",
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'u'}",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = map(int, re.search(r"<title>(.*?)</title>", done.stdout)[1].split())
    inner, wide, pictures, seen, lines = found
    # A bar for scrolling takes some of the width.
    assert inner == width and wide <= width and pictures == seen == count and lines == 1


def test_a_fit_to_data_has_its_own(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    found = NFVI("loc", seed=1).fit_data(x, epochs=3)
    found.report(tmp_path / "r.html", x)
    assert titles(tmp_path / "r.html") == [
        "Quality", "Density", "Summary", "Course of the fit", "Settings", "Versions",
    ]  # fmt: skip
    wide = NFVI("scale-loc", seed=1).fit_data(x[:, :1], context=x[:, 1], epochs=3)
    wide.report(tmp_path / "r.html")
    assert titles(tmp_path / "r.html")[:2] == ["Quality", "Course of the fit"]
    with pytest.raises(ValueError, match="x has"):
        found.report(tmp_path / "r.html", x[:, :1])
    wide.report(tmp_path / "r.html", context=[0.5])
    assert titles(tmp_path / "r.html")[:2] == ["Quality", "Density"]


def test_many_columns_are_drawn_beside_draws(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    found = NFVI("loc", seed=1).fit_data(x, epochs=3, progress=False)
    found.report(tmp_path / "r.html", x)
    assert titles(tmp_path / "r.html")[:3] == ["Quality", "Density", "Summary"]
    found.report(tmp_path / "r.html")
    assert "Density" not in titles(tmp_path / "r.html")


def line(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


@pytest.fixture(scope="module")
def of_data() -> Fit:
    x = torch.linspace(-1, 1, 50)
    fit = NFVI("scale-loc", seed=1).fit(line, x, x, steps=2, restarts=1, progress=False)
    fit.search(draws=500)
    return fit


class TestPredictiveCheck:
    TITLE = "Posterior predictive check"

    def test_data_stand_beside_predictions(self, of_data: Fit, tmp_path: Path) -> None:
        of_data.report(tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert self.TITLE in titles(tmp_path / "r.html")
        assert all(f">{word} of y<" in page for word in ("mean", "sd", "least", "largest"))
        # y = x has an sd of 0.58 without any noise, and the model's noise has one of 1.
        assert re.search(r">sd of y<.*?>0\.58.*?>1\.00</td></tr>", page)

    def test_what_takes_too_long_is_said_in_a_word(
        self, of_data: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nfvi.fit.predictive_check.SECONDS", 0.0)
        of_data.report(tmp_path / "r.html")
        assert "Left out, as 20 predicted data sets" in (tmp_path / "r.html").read_text("utf-8")

    def test_so_is_what_fails(
        self, of_data: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise TargetError("no data today")

        monkeypatch.setattr(of_data, "predict", refuse)
        of_data.report(tmp_path / "r.html")
        assert "No predictions: no data today." in (tmp_path / "r.html").read_text("utf-8")

    def test_a_target_without_data_has_none(self, whole: Path) -> None:
        assert self.TITLE not in titles(whole)


def test_a_comparison_has_its_own(fit: Fit, run: MCMCRun, tmp_path: Path) -> None:
    made = compare(fit, run, draws=100, seed=1)
    made.report(tmp_path / "r.html")
    assert titles(tmp_path / "r.html") == ["In one picture", "Scalars", "In words", "Versions"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert str(made).splitlines()[-1] in page and page.count("data:image/png") == 1
