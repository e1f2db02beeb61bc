"""The version: that of the installed package, and a word for it in a checkout that is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_INSTALLED = """
import importlib.metadata as metadata

def version(package, find=metadata.version):
    if package == "nfvi":
        raise metadata.PackageNotFoundError(package)
    return find(package)

metadata.version = version
"""
PRINTED = """
import runpy
import nfvi
from nfvi.cli import app

print(nfvi.__version__)
print(runpy.run_path("docs/conf.py")["release"])
nfvi.show_versions()
app(["--version"])
"""


def test_checkout_that_is_not_installed_has_a_version():
    """In the package, in its pages, in a report of a bug and on the command line."""
    code = [sys.executable, "-c", NOT_INSTALLED + PRINTED]
    run = subprocess.run(code, cwd=ROOT, check=True, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert lines[:2] == ["0+unknown"] * 2
    assert lines[2].split() == ["nfvi", "0+unknown"]
    assert lines[-1] == "nfvi 0+unknown"
