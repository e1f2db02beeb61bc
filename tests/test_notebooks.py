"""What a notebook shows: pictures once, cards with the verdict, and the bar."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from nfvi import NFVI, LogDensity, calibrate, compare, compare_evidence, nuts

NAME = "<script>alert(1)</script>"
SETUP = """
import sys
from nfvi import NFVI, LogDensity, plots
target = LogDensity(lambda z: -0.5 * z.square().sum(-1), 2, name="<script>alert(1)</script>")
fit = NFVI("scale-loc", seed=1).fit(target, steps=60, restarts=2)
assert "matplotlib.pyplot" not in sys.modules
"""
CELLS = {
    "bar": SETUP,
    "card": "fit",
    "table": "fit.summary(100)",
    "axes": "plots.history(fit)",
    "figure": "plots.pairs(fit)",
    "pyplot": "import matplotlib.pyplot as plt; plots.history(fit)",
    "figure and pyplot": "plots.pairs(fit)",
    "drawn by pyplot": "_, ax = plt.subplots(); plots.history(fit, ax=ax)",
    "figure after it": "plots.pairs(fit)",
    "axes after it": "plots.target(target, window=((-3, 3), (-3, 3)))",
    "not the last": "ax = plots.history(fit)",
}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[Any]]:
    """The outputs of each cell, by its name."""
    pytest.importorskip("ipykernel")
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    # Without the backend of the tests a kernel has its own, which shows what pyplot keeps.
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client.NotebookClient(notebook, timeout=None, kernel_name="python3").execute(env=env)
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def pictures(shown: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestNotebook:
    @pytest.mark.parametrize(
        "cell",
        [name for name in CELLS if name not in ("bar", "card", "table", "not the last")],
    )
    def test_a_picture_is_shown_once(self, outputs: dict[str, list[Any]], cell: str) -> None:
        assert pictures(outputs[cell]) == 1

    def test_a_picture_that_does_not_end_its_cell_is_not(
        self, outputs: dict[str, list[Any]]
    ) -> None:
        assert outputs["not the last"] == []

    def test_a_fit_is_a_card(self, outputs: dict[str, list[Any]]) -> None:
        (shown,) = outputs["card"]
        assert "<b>Verdict: " in shown["data"]["text/html"]
        assert "NFVI 'scale-loc' on" not in shown["data"]["text/plain"]

    def test_a_summary_is_a_table(self, outputs: dict[str, list[Any]]) -> None:
        (shown,) = outputs["table"]
        table = shown["data"]["text/html"]
        assert "<table" in table and "<p>Verdict: good.</p>" in table
        assert "Verdict: good." in shown["data"]["text/plain"]

    def test_a_fit_has_its_bar(self, outputs: dict[str, list[Any]]) -> None:
        """A widget where ipywidgets is there, and else a line."""
        text = str(outputs["bar"])
        assert "scale-loc" in text or "widget-view" in text


class Tags(HTMLParser):
    """The tags of a text, and whether each is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def log_p(z: torch.Tensor) -> torch.Tensor:
    return -0.5 * z.square().sum(-1)


def effect(y: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """One of each thing that a notebook shows as a card, by its name."""
    target = LogDensity(log_p, 2, name=NAME)
    fit = NFVI("scale-loc", seed=1).fit(target, steps=60, restarts=2, progress=False)
    run = nuts(target, draws=50, warmup=50, chains=2, seed=1, progress=False)
    how = {"steps": 5, "restarts": 1, "n_jobs": 1, "seed": 1}
    x = np.random.default_rng(0).normal(size=(60, 2))
    return {
        "Fit": fit,
        "DensityFit": NFVI("loc", seed=1).fit_data(x, epochs=3),
        "ClimbPath": NFVI(seed=1).fit(target, budget=60).path,
        "Verification": fit.verify(chains=100),
        "Comparison": compare(fit, run, draws=50, seed=1),
        "MCMCRun": run,
        "Calibration": calibrate(effect, "loc", torch.zeros(()), simulations=9, draws=9, **how),
        "EvidenceComparison": compare_evidence({NAME: fit, "b": fit}),
        "Formula": fit.formula,
    }


LEADS = {
    "Fit": "<b>Verdict: good.</b>",
    "DensityFit": "<b>Log-likelihood of held out rows: ",
    "ClimbPath": "<b>Kept: ",
    "Verification": "<b>No mean is off by 0.1 sd or more",
    "Comparison": "<b>scale-loc and NUTS: no mean or sd differs",
    "MCMCRun": "<b>",
    "Calibration": "<b>",
    "EvidenceComparison": f"<b>Most evidence: {NAME.replace('<', '&lt;').replace('>', '&gt;')}",
    "Formula": "<b>scale-loc</b>",
}


@pytest.mark.parametrize("name", LEADS)
def test_cards(shown: dict[str, Any], name: str) -> None:
    assert type(shown[name]).__name__ == name
    text = shown[name]._repr_html_()
    assert text.index(LEADS[name]) < text.index("<table")
    found = Tags(text)
    assert not found.open and "script" not in found.seen
    assert {"b", "table"} <= found.seen
    assert found.seen & {"details", "svg"}


def test_a_fit_without_target_or_steps_has_a_card_too(tmp_path: Any) -> None:
    fit = NFVI("loc", seed=1).fit(log_p, dim=2, steps=5, restarts=1, progress=False)
    fit.save(tmp_path / "fit")
    again = type(fit).load(tmp_path / "fit")
    assert "<svg" in again._repr_html_() and "Verdict: " in again._repr_html_()
    again._diagnostics = None
    assert "load it with target=" in again._repr_html_()
