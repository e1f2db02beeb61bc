"""The pages: every block of Python runs, and so does every example in their tables.

A block that cannot run stands below a comment, ``<!-- not run: the reason -->``. What takes long is
cut short: a few steps, a few draws.
"""

from __future__ import annotations

import ast
import doctest
import re
import runpy
from pathlib import Path

import pytest

import nfvi
import nfvi.plots
from tests.short_runs import cut_short

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md"),
    *sorted(
        str(path.relative_to(ROOT))
        for folder in (".", "api")
        for path in (ROOT / "docs" / folder).glob("*.md")
    ),
]
FENCE = re.compile(
    r"(?P<skip><!-- not run: .+ -->\n\s*)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```$",
    re.M | re.S,
)
EXTENSION = runpy.run_path(str(ROOT / "docs" / "_ext" / "generated_pages.py"))
CODE = re.compile(r"`([^`]+)`")
COLUMN = " nfvi "
"""The head of a last column whose code is run."""
NEEDS = {
    "docs/other-libraries.md": "numpyro",
    "docs/pymc.md": "pymc",
    "pymc_model": "pymc",
    "table": "sklearn",
}
"""What a page or script cannot do without, and is skipped where it is not installed."""
FIRST = {path.stem: path for path in (ROOT / "examples" / "first").glob("*.py")}


def blocks(page: str, *, doctests: bool) -> list[str]:
    """The lines of a page, all but its Python emptied: errors name lines of the page."""
    text = (ROOT / page).read_text()
    lines = [""] * (text.count("\n") + 2)
    for block in FENCE.finditer(text):
        if block["skip"] or (">>>" in block["code"]) != doctests:
            continue
        first = text.count("\n", 0, block.start("code"))
        width = len(block["indent"])
        for i, line in enumerate(block["code"].splitlines()):
            lines[first + i] = line[width:]
    return lines


def script(page: str) -> str:
    """The code of a page, that in the last columns of its tables too."""
    lines = blocks(page, doctests=False)
    runs = False
    for i, line in enumerate((ROOT / page).read_text().splitlines()):
        cells = line.strip().strip("|").split("|")
        if not line.startswith("|"):
            runs = False
        elif cells[-1] == COLUMN:
            runs = True
        elif runs:
            lines[i] = "; ".join(CODE.findall(cells[-1]))
    return "\n".join(lines)


def examples(page: str) -> doctest.DocTest:
    """The doctests of a page."""
    text = "\n".join(blocks(page, doctests=True))
    return doctest.DocTestParser().get_doctest(text, {}, page, page, 0)


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Fits, chains and diagnostics of a few steps and draws, in an empty folder."""
    cut_short(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.mark.pyro_params
@pytest.mark.filterwarnings("ignore:\nArviZ is undergoing:FutureWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if script(page).strip()])
def test_code_runs(page, short, tmp_path):
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    path = tmp_path / f"{Path(page).stem}.py"
    path.write_text(script(page))
    runpy.run_path(str(path))


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation")
@pytest.mark.parametrize("name", FIRST)
def test_first_scripts_leave_their_picture(name, short, tmp_path):
    """They are short, and shown on their page with the picture of a whole run."""
    pytest.importorskip(NEEDS.get(name, "nfvi"))
    runpy.run_path(str(FIRST[name]))
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert 15 <= FIRST[name].read_text().count("\n") <= 40
    page = (ROOT / "docs" / "first-picture.md").read_text()
    assert f"../examples/first/{name}.py" in page and f"(_static/first-{name}.png)" in page


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page).examples])
def test_doctests(page, short):
    assert doctest.DocTestRunner().run(examples(page)).failed == 0


def test_what_is_run_is_found():
    """Blocks, tables and reasons for leaving something out are told apart."""
    code = script("docs/coming-from.md").splitlines()
    assert "from models import eight_schools, pot1" in code
    assert any(line.startswith('inference = NFVI("planar*8"') for line in code)
    assert len(examples("docs/formula.md").examples) > 5
    text = "<!-- not run: no PyMC here -->\n```python\nimport pymc\n```\n\n```python\na = 1\n```\n"
    assert [bool(block["skip"]) for block in FENCE.finditer(text)] == [True, False]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", text)
    made = [link for link in links if not link.startswith("_generated/")]
    assert not [link for link in made if not ((ROOT / page).parent / link).exists()]


def test_api_pages_hold_every_public_name():
    """Each once, under a topic that has a page."""
    topics = EXTENSION["topics"]()
    names = [name for members in topics.values() for name in members]
    pictures = [f"plots.{name}" for name in nfvi.plots.__all__]
    assert sorted(names) == sorted([*nfvi.__all__, *pictures])
    pages = {path.stem for path in (ROOT / "docs" / "api").glob("*.md")}
    assert pages == set(topics) and all(topics.values())
    for topic, members in topics.items():
        assert f"api-{topic}.md" in (ROOT / "docs" / "api" / f"{topic}.md").read_text()
        entry = EXTENSION["parts"]()[f"api-{topic}.md"]
        assert all(f":: nfvi.{name}\n" in entry for name in members)


def test_gallery_has_every_picture():
    """Each function is called, and what is shown is what the code saves."""
    page = (ROOT / "docs" / "gallery.md").read_text()
    code = runpy.run_path(str(ROOT / "docs" / "_ext" / "gallery.py"))["code_of"](page)
    assert not [name for name in nfvi.plots.__all__ if f"plots.{name}(" not in code]
    saved = re.findall(r'savefig\("(.+)"\)', code)
    assert sorted(saved) == sorted(re.findall(r"\]\(_generated/gallery/(.+)\)", page))


def test_messages_that_a_page_quotes_are_there():
    """Those of the table by which a reader looks an error up."""
    page = (ROOT / "docs" / "what-went-wrong.md").read_text()
    table = page.split("| the message has |")[1].split("\n\n")[0]
    quoted = re.findall(r"^\| `([^`]+)`", table, re.M)
    source = " ".join(
        str(node.value)
        for path in (ROOT / "nfvi").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    known = re.sub(r"\s+", " ", source)
    missing = [text for text in quoted if text.split("[")[0] not in known]
    assert len(quoted) > 8 and not missing


def test_glossary_is_in_order():
    page = (ROOT / "docs" / "glossary.md").read_text().split("```{glossary}")[1]
    terms = re.findall(r"^(\S.*)$", page.split("```")[0], re.M)
    assert len(terms) > 30 and terms == sorted(terms, key=str.lower)
