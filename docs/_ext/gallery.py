"""The pictures of the gallery, drawn by the code of that page before Sphinx reads it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

__all__ = ["code_of", "draw", "setup"]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def code_of(page: str) -> str:
    """The blocks of Python of a page, one after the other."""
    return "\n".join(BLOCK.findall(page))


def draw(app: Sphinx) -> None:
    """Run the code of gallery.md in docs/_generated/gallery, where it leaves its pictures.

    That is done once for a text of the code; ``make clean`` has it done again.

    Raises:
        ExtensionError: the code failed.
    """
    source = Path(app.srcdir)
    code = code_of((source / "gallery.md").read_text(encoding="utf-8"))
    folder = source / "_generated" / "gallery"
    digest, done = hashlib.sha256(code.encode()).hexdigest(), folder / "digest"
    if done.exists() and done.read_text() == digest:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gallery.py").write_text(code, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(source.parent), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "gallery.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise ExtensionError(f"the code of gallery.md failed:\n{run.stderr}")
    done.write_text(digest)


def setup(app: Sphinx) -> dict[str, bool]:
    """Have the pictures drawn before Sphinx reads any page."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
