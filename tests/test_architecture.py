"""The page for developers says what the code says: which rooms there are, and every name on it.

That the floors of the page are those of the imports is the matter of test_floors.py.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import nfvi

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms() -> dict[str, str]:
    """Each folder, and each file outside of all folders, with the first line of its docstring."""
    found = {}
    for module in pkgutil.walk_packages(nfvi.__path__, "nfvi."):
        if module.ispkg or module.name.count(".") == 1:
            path = module.name.replace(".", "/") + ("/" if module.ispkg else ".py")
            found[path] = inspect.getdoc(importlib.import_module(module.name)).splitlines()[0]
    return found


def test_table_has_every_room_with_its_first_line():
    assert dict(re.findall(r"^\| `(nfvi/\S+)` \| (.+) \|$", PAGE, re.MULTILINE)) == rooms()


def test_every_name_is_there():
    names = set(re.findall(r"`(nfvi(?:\.\w+)+)", PAGE))
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name) is not None


def test_every_file_is_there():
    paths = re.findall(r"`((?:nfvi|tests|docs)/[\w/]+(?:\.\w+)?)`", PAGE)
    root = Path(nfvi.__file__).parents[1]
    assert paths and not [path for path in paths if not (root / path).exists()]
