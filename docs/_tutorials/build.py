"""Tutorials: a text in Markdown becomes a notebook, run from top to bottom.

``python docs/_tutorials/build.py`` builds all of docs/tutorials/, and names of texts build these
alone. ``--prose`` runs nothing, where only the prose has changed. Edit the text, and never the
notebook.
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

__all__ = ["NOTEBOOKS", "TEXTS", "build", "notebook_of", "outputs_of", "run"]

TEXTS = Path(__file__).parent
NOTEBOOKS = TEXTS.parent / "tutorials"
ROOT = TEXTS.parents[1]
BLOCK = re.compile(r"^```python(?: (\w+))?\n(.*?)^```$", re.M | re.S)
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = "image/png"
BAR = re.compile(r"^[^\n]*\r[^\n]*\n?", re.M)
# The line above the bar of "auto" forecasts seconds, which are those of the machine of the build.
FORECAST = re.compile(
    r"^\S[^\n]*: one evaluation at \d+ points takes .+?(?:of\s+their\s+own|ends\s+it)\.\n+",
    re.M | re.S,
)
# A warning names the file of its cell, which has another name in each run.
PLACE = re.compile(r"^\S*ipykernel_\d+\S*:\d+: ", re.M)
SOURCE = re.compile(r"^  \S.*\n?", re.M)
WIDTH, COLORS = 800, 128  # of a picture: a few dozen kB, and no difference to be seen


def notebook_of(text: str) -> NotebookNode:
    """The cells of a text: blocks of Python are code, and what is between them is prose.

    A word behind ``python`` is the tag of a cell, such as ``parameters``.
    """
    cells, end = [], 0
    for block in BLOCK.finditer(text):
        cells += _prose(text[end : block.start()])
        tags = [block[1]] if block[1] else []
        metadata = {"tags": tags} if tags else {}
        cells.append(nbformat.v4.new_code_cell(block[2].rstrip("\n"), metadata=metadata))
        end = block.end()
    cells += _prose(text[end:])
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"  # else a random one, and each build would change every cell
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _prose(text: str) -> list[NotebookNode]:
    return [nbformat.v4.new_markdown_cell(text.strip())] if text.strip() else []


def run(notebook: NotebookNode, folder: Path, first: str = "") -> None:
    """Run a notebook in place, and keep its outputs.

    Args:
        notebook: what to run.
        folder: where it runs.
        first: code that is run after the cell that is tagged ``parameters``, and not kept.

    Raises:
        CellExecutionError: a cell raised an error.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # A backend that is set from outside is another one than that of notebooks.
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    if first:
        tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
        place = 1 + ["parameters" in of_cell for of_cell in tags].index(True)
        notebook.cells.insert(place, nbformat.v4.new_code_cell(first))
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=env | {"PYTHONPATH": path})
    if first:
        del notebook.cells[place]
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_kept, cell.outputs) if output]


def _kept(output: NotebookNode) -> NotebookNode | None:
    """An output without bars, and without places of this machine; ``None`` if nothing is left."""
    if output.get("name") == "stdout":
        output.text = FORECAST.sub("", output.text)
        return output if output.text.strip() else None
    if WIDGET in output.get("data", {}):
        return None
    if PNG in output.get("data", {}):
        output.data[PNG] = _smaller(output.data[PNG])
    if output.get("name") == "stderr":
        text = BAR.sub("", output.text)
        output.text = SOURCE.sub("", PLACE.sub("", text)) if PLACE.search(text) else text
        return output if output.text.strip() else None
    return output


def _smaller(picture: str) -> str:
    """A picture in base64, no wider than the page and in fewer colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(COLORS, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def outputs_of(notebook: NotebookNode, before: NotebookNode) -> None:
    """Take the outputs over from a notebook that ran the same code.

    Raises:
        SystemExit: its code is another.
    """
    cells, ran = (
        [cell for cell in one.cells if cell.cell_type == "code"] for one in (notebook, before)
    )
    if [cell.source for cell in cells] != [cell.source for cell in ran]:
        raise SystemExit("the code has changed: build without --prose")
    for cell, old in zip(cells, ran, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    notebook.metadata = before.metadata


def build(name: str, *, prose: bool = False) -> Path:
    """Run the text of a name, or renew the prose alone, and write its notebook."""
    notebook = notebook_of((TEXTS / f"{name}.md").read_text(encoding="utf-8"))
    path = NOTEBOOKS / f"{name}.ipynb"
    if prose:
        outputs_of(notebook, nbformat.read(path, as_version=4))
    else:
        run(notebook, NOTEBOOKS)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Build what the command line names, or all."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    known = sorted(path.stem for path in TEXTS.glob("*.md"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*known, []], help=", ".join(known))
    parser.add_argument("--prose", action="store_true", help="the code is the same: run nothing")
    options = parser.parse_args(argv)
    for name in options.names or known:
        start = time.perf_counter()
        path = build(name, prose=options.prose)
        seconds, size = time.perf_counter() - start, path.stat().st_size / 1000
        logging.info("%s: %.0f s, %.0f kB", path.relative_to(ROOT), seconds, size)


if __name__ == "__main__":
    main()
