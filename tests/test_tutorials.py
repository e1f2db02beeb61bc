"""The tutorials: notebooks that are what their texts say, and that run."""

from __future__ import annotations

import re
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = ROOT / "docs" / "_tutorials"
NOTEBOOKS = ROOT / "docs" / "tutorials"
MOST_BYTES = 300_000
SHORT = """
import nfvi.fit.measured, nfvi.fit.restarts, nfvi.search.search
nfvi.fit.measured.DIAGNOSTIC_DRAWS = nfvi.fit.restarts.DRAWS = 400
for name in ("DRAWS", "DRAWS_FEW_DIMENSIONS", "FEWEST_DRAWS"):
    setattr(nfvi.search.search, name, 1_000)
few = nfvi.Budget(steps=10)
"""
"""Few draws for diagnostics and searches, which a reader has no reason to change."""
GAUSSIAN = """
whole = nfvi.NFVI.fit
def quick(start, target, budget=None, **how):
    auto = start.formula == "auto"
    return whole(nfvi.NFVI("tril", seed=1) if auto else start, target, **{"steps": 20} | how)
nfvi.NFVI.fit = quick
"""
"""A Gaussian in place of what "auto" finds, which in a few steps is a mixture without a base."""


@dataclass(frozen=True)
class Tutorial:
    """What a tutorial ends with, and the numbers of its first cell for a run that is short."""

    short: str
    ends: str
    stored: str
    needs: str = "nfvi"


TUTORIALS = {
    "from-pymc": Tutorial(
        "steps, most, draws = 20, 10, 20",
        r"H1: 4 of 4 recovered; its rate is 0\.\d\d, between 0\.\d\d and [01]\.\d\d",
        r"its rate is 0\.[67]\d, between 0\.[56]\d and 0\.[89]\d",
        needs="pymc",
    ),
    "likelihood-to-evidence": Tutorial(
        "budget, grid = few, 50",
        r"the line is at \d+\.\d\d ± \d+\.\d\d keV; the data were made with 6\.20",
        r"the line is at 6\.[23]\d ± 0\.\d\d keV",
    ),
    "table-to-anomalies": Tutorial(
        "epochs = 2",
        r"same scores after loading: True",
        r"same scores after loading: True",
        needs="sklearn",
    ),
    "when-not-to-trust": Tutorial(
        GAUSSIAN + "steps, chains, draws = 20, 100, 10",
        r"narrow +\w.*\nhasty +\w.*\nfunnel +\w.*\ngood +\w",
        r"(?:(?:narrow|hasty|funnel) +not to be trusted\n){3}good +good",
    ),
    "big-data": Tutorial(
        "rows, steps = 2_000, 10",
        r"\d of 5 weights lie within their interval of 90 %",
        r"[45] of 5 weights lie within",
    ),
}


@pytest.fixture(scope="module")
def build() -> dict[str, Any]:
    """The names of docs/_tutorials/build.py."""
    pytest.importorskip("nbclient")
    return runpy.run_path(str(TEXTS / "build.py"))


def stored(name: str) -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def pictures(notebook: Any) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_every_text_has_a_notebook_and_a_place_in_the_list() -> None:
    texts = {path.stem for path in TEXTS.glob("*.md")}
    assert texts == {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(TUTORIALS)
    listed = (ROOT / "docs" / "tutorials.md").read_text()
    assert all(listed.count(f"tutorials/{name}") == 3 for name in texts)


@pytest.mark.parametrize("name", TUTORIALS)
class TestStored:
    def test_is_what_its_text_says(self, name: str, build: dict[str, Any]) -> None:
        """If not: ``make tutorials``."""
        text = build["notebook_of"]((TEXTS / f"{name}.md").read_text())
        assert [cell.source for cell in text.cells] == [cell.source for cell in stored(name).cells]

    def test_was_run_from_top_to_bottom(self, name: str) -> None:
        cells = code_cells(stored(name))
        assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
        assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
        assert re.search(TUTORIALS[name].stored, printed(cells[-1]))

    def test_has_pictures_and_is_small(self, name: str) -> None:
        assert pictures(stored(name)) >= 1
        text = (NOTEBOOKS / f"{name}.ipynb").read_text()
        assert len(text) < MOST_BYTES
        assert "ipykernel" not in text and "widget-view" not in text and str(ROOT) not in text

    def test_links_lead_somewhere(self, name: str) -> None:
        prose = "\n".join(c.source for c in stored(name).cells if c.cell_type == "markdown")
        links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", prose)
        assert "../gallery.md" in links
        assert not [link for link in links if not (NOTEBOOKS / link).exists()]


# Compiling PyMC's models takes as long as all the other tutorials do together.
SLOW = pytest.param("from-pymc", marks=pytest.mark.slow)


@pytest.mark.process_wide  # the client of the kernel listens to SIGINT
@pytest.mark.parametrize("name", [SLOW, *(name for name in TUTORIALS if name != "from-pymc")])
def test_runs(name: str, build: dict[str, Any], tmp_path: Path) -> None:
    """With few steps: no cell fails, and the last one prints what the text says."""
    for needed in ("ipykernel", "matplotlib", TUTORIALS[name].needs):
        pytest.importorskip(needed)
    notebook = build["notebook_of"]((TEXTS / f"{name}.md").read_text())
    build["run"](notebook, tmp_path, SHORT + TUTORIALS[name].short)
    assert re.search(TUTORIALS[name].ends, printed(code_cells(notebook)[-1]))
    assert pictures(notebook) == pictures(stored(name))


def test_new_prose_keeps_outputs_and_new_code_does_not(build: dict[str, Any]) -> None:
    before = build["notebook_of"]("One.\n\n```python\n1\n```\n")
    before.cells[1].execution_count = 7
    after = build["notebook_of"]("Two.\n\n```python\n1\n```\n")
    build["outputs_of"](after, before)
    assert after.cells[0].source == "Two." and after.cells[1].execution_count == 7
    with pytest.raises(SystemExit, match="the code has changed"):
        build["outputs_of"](build["notebook_of"]("```python\n2\n```\n"), before)


def test_bars_and_places_are_left_out(build: dict[str, Any]) -> None:
    """A bar says nothing to a reader, and a place is another one in each run."""
    output, kept = pytest.importorskip("nbformat").v4.new_output, build["_kept"]
    assert kept(output("display_data", {build["WIDGET"]: {}})) is None
    bar = output("stream", name="stderr", text="fit:   0%|  | 0/9\rfit: 100%|##| 9/9\n")
    assert kept(bar) is None
    place = "/tmp/ipykernel_7/12.py:1: FitWarning: look\n  fit.summary()\n"
    assert kept(output("stream", name="stderr", text=place)).text == "FitWarning: look\n"
    said = "m: one evaluation at 256 points takes 3.1 s.\n    Flows take time of their own.\n\n3\n"
    line = output("stream", name="stdout", text=said)
    assert kept(line).text == "3\n"
    plain = output("stream", name="stdout", text="3\n")
    assert kept(plain) is plain


def test_tags_and_prose_of_a_text(build: dict[str, Any]) -> None:
    text = "# Title\n\n```python parameters\nn = 1\n```\n\n```text\nn\n```\n\n```python\nn\n```\n"
    cells = build["notebook_of"](text).cells
    assert [cell.source for cell in cells] == ["# Title", "n = 1", "```text\nn\n```", "n"]
    assert cells[1].metadata == {"tags": ["parameters"]} and not cells[3].metadata
    assert [cell.id for cell in cells] == ["cell-0", "cell-1", "cell-2", "cell-3"]
