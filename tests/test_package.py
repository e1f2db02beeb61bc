"""The package as a whole: what it installs, what it imports, what it says of itself."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import models
import nfvi

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = [
    module.name
    for package in (nfvi, models)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]
IMPORT_NAMES = {"pyro-ppl": "pyro", "scikit-learn": "sklearn"}


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Each file under ``folder`` with each module that it imports, wherever in the file."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module == "nfvi":
                yield from ((path, f"nfvi.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module


def declared(requirements: list[str]) -> set[str]:
    """The import names of a list of requirements."""
    names = [re.match(r"[\w-]+", requirement).group() for requirement in requirements]
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The functions and classes that a module defines, and the methods of those classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            own = [m for m in vars(value) if not m.startswith("_")]
            methods = ((m, getattr(value, m)) for m in own)
            yield from ((f"{name}.{m}", v) for m, v in methods if inspect.isroutine(v))


def test_version_is_the_installed_one():
    assert nfvi.__version__ == importlib.metadata.version("nfvi") == PROJECT["version"]


def test_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert set(citation) >= {"message", "title", "authors"}  # what the format demands
    for key in ("version", "license"):
        assert citation[key] == PROJECT[key]
    assert citation["title"].startswith(f"{PROJECT['name']}: ")


def test_changelog_has_this_version():
    """With its date, below what is not released yet."""
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert titles[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(PROJECT['version'])}\] - \d{{4}}-\d\d-\d\d", titles[1])


def test_the_workflow_runs_every_python_that_is_supported():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["check"]
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"]]
    assert job["strategy"]["matrix"]["python"] == [v for v in named if re.fullmatch(r"3\.\d+", v)]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text())


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        (
            "nfvi",
            ["arviz", "jax", "jobs", "nutpie", "plots", "pymc", "sklearn", "stan", "tensorboard"],
        ),
        ("models", ["models"]),
    ],
)
def test_every_import_is_a_declared_dependency(folder, extras):
    allowed = declared(PROJECT["dependencies"]) | {"nfvi", folder} | sys.stdlib_module_names
    for extra in extras:
        allowed |= declared(PROJECT["optional-dependencies"][extra])
    missing = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path, module in imports(folder)
        if module.split(".")[0] not in allowed
    }
    assert not missing


def test_import_leaves_what_is_slow_or_an_extra_alone():
    code = "import nfvi, sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    extras = {"arviz", "arviz_base", "arviz_stats", "matplotlib", "sklearn", "tensorboard"}
    extras |= {"bridgestan", "httpstan", "jax", "numpyro"}  # Pyro itself imports funsor
    assert "torch" in run.stdout.split() and not extras & set(run.stdout.split())


def test_public_names_are_there():
    assert not [name for name in nfvi.__all__ if not hasattr(nfvi, name)]


@pytest.mark.parametrize("name", MODULES)
def test_public_things_have_docstrings(name):
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    assert not [thing for thing, value in public(module) if not inspect.getdoc(value)]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_wheel_holds_the_package_alone(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"nfvi/py.typed", "nfvi/utils/report.html"} <= set(names)
    assert tops == {"nfvi", f"nfvi-{PROJECT['version']}.dist-info"}


def test_a_fit_does_not_import_the_compiler() -> None:
    # It takes 1.6 s of CPU, of the 4 of a short fit with its imports.
    code = (
        "import sys; from models import pot1; from nfvi import NFVI;"
        " fit = NFVI('planar', seed=1).fit(pot1, steps=120, restarts=2, progress=False);"
        " assert fit.settings['evaluation'] == 'traced', fit.settings['evaluation'];"
        " print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
