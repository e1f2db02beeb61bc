"""Commands that the pages and the benchmarks' own texts show: each is run, or at least parsed.

``nfvi ...`` runs, with a few steps and draws, in a folder that holds the files it names. Options of
benchmarks and examples are parsed by their own parsers. Targets of make, extras, files and markers
must be there. What can be neither run nor parsed is in ``NOT_RUN`` with the reason, and any other
command fails.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from typer.testing import CliRunner

from nfvi.cli import app
from tests.short_runs import cut_short

# What another command has imported is run once more, as a command.
pytestmark = pytest.mark.filterwarnings("ignore:'benchmarks.* found in sys.modules:RuntimeWarning")

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = [
    *("README.md", "CONTRIBUTING.md"),
    *sorted(
        str(path.relative_to(ROOT))
        for folder in ("docs", "docs/api", "docs/_tutorials")
        for path in (ROOT / folder).glob("*.md")
    ),
]
TEXTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").rglob("*.py"))

NOT_RUN = {
    "nfvi --install-completion": "writes into the settings of the reader's shell",
    "nfvi fit TARGET": "TARGET stands for a target",
    "nfvi fit-data ... --decimal ,": "... stands for a file",
    "pip install 'nfvi[...]'": "... stands for an extra",
}
"""Commands that cannot be run, and why."""
OTHER_PACKAGES = {"h5netcdf", "h5py", "posteriordb"}
"""What pages install beside nfvi."""
MEASURED_AGAINST = ("normflows", "zuko")
"""Libraries of the extra ``bench`` that modules import at once and parsing does not need."""

SHELLS = {"sh", "bash", "console", "shell"}
OTHER_BLOCKS = {"python", "python parameters", "text"}
FENCE = re.compile(
    r"^ *(?P<ticks>`{3,})(?P<kind>[^`\n]*)\n(?P<code>.*?)^ *(?P=ticks)$", re.M | re.S
)
INLINE = re.compile(r"`((?:nfvi (?=fit|flows|-)|(?:python|make|pip|pytest|torchrun) )[^`\n]+)`")
DOCSTRING = re.compile(r"^ {4}((?:nfvi|python|pip|\.\.\.) .+)$", re.M)
PROMPT = re.compile(r"^(\$ |nfvi [a-z]|pip install |python -m )", re.M)


@dataclass(frozen=True)
class Command:
    """A command, and the page that shows it."""

    text: str
    page: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a page: kind and content."""
    for block in FENCE.finditer((ROOT / page).read_text()):
        yield block["kind"].strip(), block["code"]


def of_page(page: str) -> Iterator[Command]:
    """The commands in the blocks of a page, and those in its prose."""
    for kind, code in blocks(page):
        if kind in SHELLS:
            for line in code.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield Command(re.sub(r"\s+# .*", "", line.strip().removeprefix("$ ")), page)
    for text in INLINE.findall(FENCE.sub("", (ROOT / page).read_text())):
        yield Command(text, page)


def of_docstring(path: str) -> Iterator[Command]:
    """The commands in the docstring of a benchmark; ``...`` stands for the command above."""
    docstring = re.sub(r"\s*\\\\\n\s*", " ", (ROOT / path).read_text().split('"""')[1])
    above = ""
    for text in DOCSTRING.findall(docstring):
        text = re.sub(r"\s+# .*", "", text)
        above = above if text.startswith("...") else text
        yield Command(text.replace("...", above), path)


FOUND = list(
    dict.fromkeys(
        [
            *(command for page in PAGES for command in of_page(page)),
            *(command for path in TEXTS for command in of_docstring(path)),
        ]
    )
)
SHOWN = [command for command in FOUND if command.text not in NOT_RUN]
LOCAL = [command for command in SHOWN if command.words[0] == "nfvi"]


def first_block(page: str, end: str) -> str:
    """The first block of Python of a page, up to a text."""
    code = next(code for kind, code in blocks(page) if kind == "python")
    return code[: code.index(end)]


def write_files(folder: Path) -> None:
    """What the commands of the pages name: models, a log-density, a table."""
    (folder / "models").symlink_to(ROOT / "models", target_is_directory=True)
    log_p = "\n\ndef log_p(z):\n    return -0.5 * (z**2).sum(-1)\n"
    (folder / "model.py").write_text(first_block("README.md", "\nfit = ") + log_p)
    (folder / "schools.py").write_text(first_block("docs/pymc.md", "\nfit = "))
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(folder / "data.csv", rows, delimiter=",", header="a,b,c", comments="")


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation")
@pytest.mark.parametrize("command", LOCAL, ids=lambda command: f"{command.page}: {command.text}")
def test_nfvi_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "schools.py:model" in command.words:
        pytest.importorskip("pymc")
    cut_short(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    words = command.words[1:]
    named_alone = len(words) == 1 and words[0] in {"fit", "fit-data"}
    result = CliRunner().invoke(app, [*words, *(["--help"] if named_alone else [])])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    if "--out" in words:
        out = tmp_path / words[words.index("--out") + 1]
        assert (out / "report.html").exists() and (out / "fit.safetensors").exists()


class NotRunError(Exception):
    """Raised in place of a run, once the arguments have been parsed."""


def parse(monkeypatch: pytest.MonkeyPatch, words: list[str], start: Callable[[], object]) -> None:
    """Run a program until its parser has taken the words."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *args: object) -> None:
        raise NotRunError(parse_args(parser, *args))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", [*sys.path])  # of examples, which benchmarks add to
    for name in MEASURED_AGAINST:
        if find_spec(name) is None:
            monkeypatch.setitem(sys.modules, name, MagicMock())
    with pytest.raises(NotRunError):
        start()


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A module or a script with its options."""
    if words[:2] == ["-m", "pytest"]:
        check_pytest(words[2:])
    elif words[0] == "-m":
        assert words[1].startswith("benchmarks."), words
        parse(monkeypatch, words[1:], lambda: runpy.run_module(words[1], run_name="__main__"))
    else:
        path = ROOT / words[0]
        assert path.is_file()  # a script without options is run by a test of its own
        if words[1:]:
            monkeypatch.syspath_prepend(path.parent)
            parse(monkeypatch, words, lambda: runpy.run_path(str(path), run_name="__main__"))


def check_pytest(words: list[str]) -> None:
    """Files that exist, and markers that are declared."""
    declared = {
        line.split(":")[0] for line in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    parser.add_argument("-m", choices=declared)
    parser.add_argument("-k")
    parser.add_argument("-n")
    assert all((ROOT / name).exists() for name in parser.parse_args(words).files)


def check_make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets and variables of the Makefile, and what ARGS hands on."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    targets = [word for word in words if "=" not in word]
    assert all(re.search(rf"^{target}:", MAKEFILE, re.M) for target in targets)
    assert all(re.search(rf"^{name} \?=", MAKEFILE, re.M) for name in given)
    handed = shlex.split(given.get("ARGS", ""))
    if handed and targets == ["tutorials"]:
        pytest.importorskip("nbclient")
        check_python(["docs/_tutorials/build.py", *handed], monkeypatch)
    elif handed:
        assert targets == ["test"]
        check_pytest(handed)


def check_pip(words: list[str]) -> None:
    """Extras that exist, and packages that are known here."""
    assert words[0] == "install"
    known = set(PYPROJECT["project"]["optional-dependencies"])
    for word in words[1:]:
        name, _, extras = word.rstrip("]").partition("[")
        if name in {"nfvi", "."}:
            assert known.issuperset(filter(None, extras.split(","))), word
        else:
            assert name in {"-e", *OTHER_PACKAGES}, word


def check_torchrun(words: list[str], page: str) -> None:
    """Its own parser takes the options, and the page shows the script."""
    from torch.distributed.run import get_args_parser

    script = get_args_parser().parse_args(words).training_script
    assert any(code.startswith(f"# {script}\n") for _, code in blocks(page))


@pytest.mark.parametrize(
    "command",
    [command for command in SHOWN if command not in LOCAL],
    ids=lambda command: f"{command.page}: {command.text}",
)
def test_other_commands_are_right(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = command.words
    match program.rpartition("/")[2]:
        case "python":
            check_python(words, monkeypatch)
        case "make":
            check_make(words, monkeypatch)
        case "pip":
            check_pip(words)
        case "pytest":
            check_pytest(words)
        case "torchrun":
            check_torchrun(words, command.page)
        case _:
            pytest.fail(f"{command.page} shows {command.text!r}, which no test runs")


def test_what_is_not_run_is_shown() -> None:
    assert set(NOT_RUN) == {command.text for command in FOUND} & set(NOT_RUN)


def test_blocks_are_of_a_kind_that_is_run() -> None:
    """``tests/test_docs.py`` runs Python, this file commands; ``text`` is what they print."""
    for page in PAGES:
        for kind, code in blocks(page):
            known = kind in SHELLS | OTHER_BLOCKS or kind.startswith("{")
            assert known, f"{page} has a block of {kind!r}, which no test runs"
            assert not kind.startswith(("{code", "{doctest")), f"{page}: write ```python, it is run"
            assert kind != "text" or not PROMPT.search(code), f"{page}: a command in a text block"


def test_commands_are_found() -> None:
    texts = {command.text for command in FOUND}
    assert 'nfvi fit models/potentials.py:pot1 "planar*8" --nuts --out out/' in texts
    assert "python -m benchmarks.rows --rows 100000 --columns 20 --plain" in texts
    assert "nfvi fit schools.py:model auto" in texts and len(LOCAL) > 14


@pytest.mark.parametrize(
    "text",
    [
        "python -m benchmarks.potentials --sedes 3",
        "python examples/pot1.py --quik",
        "python examples/pot_1.py",
        "make tset",
        "make tutorials ARGS='from-pymc4'",
        "pip install 'nfvi[plot]'",
        "pytest -m cude",
        "torchrun --nproc=4 fitt.py",
        "cargo build",
    ],
)
def test_a_wrong_command_fails(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, SystemExit, pytest.fail.Exception)):
        test_other_commands_are_right(Command(text, "README.md"), monkeypatch)
