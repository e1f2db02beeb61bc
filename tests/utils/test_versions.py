"""What a report of a bug says of the versions: all of them, at no cost."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

import nfvi
from nfvi.utils import versions

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
USERS = ["arviz", "jax", "plots", "sklearn", "stan", "tensorboard"]
"""The extras that nfvi itself imports."""


@pytest.fixture
def shown(capsys):
    """The lines that are printed, by the name in front."""

    def show():
        nfvi.show_versions()
        return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    return show


def test_every_requirement_is_shown(shown):
    needed = list(PROJECT["dependencies"])
    for extra in USERS:
        needed += PROJECT["optional-dependencies"][extra]
    names = {re.match(r"[\w-]+", requirement).group() for requirement in needed}
    assert names <= set(shown())


def test_versions_are_those_installed(shown):
    lines = shown()
    assert lines["nfvi"] == nfvi.__version__
    assert lines["Python"] == sys.version.split()[0]
    assert lines["pyro-ppl"] == version("pyro-ppl")
    assert lines["torch"].split(", ")[0] == torch.__version__
    threads = torch.get_num_threads()
    assert lines["torch"].endswith(f", {threads} thread" + "s" * (threads != 1))


def test_what_is_missing_is_not_installed(shown, monkeypatch):
    def none(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(versions, "version", none)
    lines = shown()
    assert lines["matplotlib"] == lines["numpy"] == "not installed"
    assert lines["torch"].startswith(torch.__version__)


def test_devices(shown, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert ", no CUDA, " in shown()["torch"]
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    for count, words in {0: "0 devices", 1: "1 device", 2: "2 devices"}.items():
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert f", CUDA 12.8 with {words}, " in shown()["torch"]


def test_nothing_is_imported_for_its_version():
    code = """
import sys, nfvi
before = set(sys.modules)
nfvi.show_versions()
heavy = {"arviz", "arviz_base", "arviz_stats", "matplotlib", "pandas", "scipy", "sklearn"}
sys.exit(bool(heavy & (set(sys.modules) - before)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
