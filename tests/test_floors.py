"""Imports go down: the whole graph of imports, held to the floors that docs/architecture.md draws.

What is imported for types alone, or inside a function, counts like any other import.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROOF = "the package itself"
"""What stands on top of all floors: the ``__init__`` of the package."""


@dataclass(frozen=True)
class Import:
    """``module`` is a file of the package; ``name`` is taken from it, or ``None`` for itself."""

    line: int
    module: str
    name: str | None


@dataclass(frozen=True)
class File:
    """A file of a package: the name of its module, where it is, and what it says."""

    module: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        return self.module if self.is_package else self.module.rpartition(".")[0]

    @property
    def room(self) -> str:
        """The folder or file directly under the package that it belongs to."""
        return room_of(self.module)

    @cached_property
    def handed_on(self) -> set[str]:
        """The names in ``__all__``."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return {e.value for e in ast.walk(node.value) if isinstance(e, ast.Constant)}
        return set()

    @cached_property
    def private_names(self) -> set[str]:
        """The names with a leading underscore that the classes of this file give to their own."""
        classes = [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]
        inside = [node for each in classes for node in ast.walk(each)]
        own = {name for each in classes for node in each.body for name in bound(node)}
        own |= {node.attr for node in inside if isinstance(node, ast.Attribute) and is_set(node)}
        return set(filter(is_private, own))


Files = Mapping[str, File]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ROOF


def bound(node: ast.stmt) -> set[str]:
    """The names that a line in the body of a class gives a value or a type."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", node)])
    return {part.id for t in targets for part in ast.walk(t) if isinstance(part, ast.Name)}


def is_set(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and is_own(node.value)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(node: ast.expr) -> bool:
    """Whether this is the object itself, whose private names may come from a base class."""
    return ast.unparse(node) in {"self", "cls", "super()"}


def read(package: Path) -> dict[str, File]:
    """The files of a package by the names of their modules."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if path.name == "__init__.py" else parts)
        files[module] = File(module, path, ast.parse(path.read_text(encoding="utf-8")))
    return files


def read_floors(page: str) -> dict[str, int]:
    """The floor of each room, from the rows ``3 │ flows │ targets │ words`` of the drawing."""
    rows = re.findall(r"^ *(\d+) *│(.+)│", page, re.MULTILINE)
    floors = [(room.strip(), int(number)) for number, rooms in rows for room in rooms.split("│")]
    rooms = [room for room, _ in floors]
    assert len(set(rooms)) == len(rooms), f"a room is on two floors: {sorted(rooms)}"
    return dict(floors)


def imports(file: File, files: Files) -> Iterator[Import]:
    """Every import of the package itself in a file, wherever it stands."""
    package = file.module.partition(".")[0]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(source, file.folder)
            if source.split(".")[0] == package:
                yield from (resolved(file, source, alias.name, node, files) for alias in node.names)


def resolved(file: File, source: str, name: str, node: ast.ImportFrom, files: Files) -> Import:
    """``from source import name``: a file of a folder, or a name."""
    inside = file.folder == source or file.folder.startswith(f"{source}.")
    handed_on = source in files and name in files[source].handed_on
    if f"{source}.{name}" in files and (inside or not handed_on):
        return Import(node.lineno, f"{source}.{name}", None)
    return Import(node.lineno, source, name)


def graph(files: Files) -> dict[str, set[str]]:
    """The files that each file imports."""
    return {name: {i.module for i in imports(file, files)} for name, file in files.items()}


def reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """All that can be reached from ``start`` in one step or more."""
    seen: set[str] = set()
    ahead = set(edges.get(start, ()))
    while ahead:
        seen |= ahead
        ahead = {there for here in ahead for there in edges.get(here, ())} - seen
    return seen


def circles(files: Files) -> list[str]:
    """Each set of files that import one another, along however many others."""
    edges = graph(files)
    reach = {file: reached(edges, file) for file in edges}
    found = {
        tuple(sorted(there for there in reach[here] if here in reach.get(there, ())))
        for here in edges
    }
    return sorted(" <-> ".join(circle) for circle in found if circle)


def each_import(files: Files) -> Iterator[tuple[File, Import, str]]:
    """Each file with each of its imports, and where that stands."""
    for file in files.values():
        for found in imports(file, files):
            yield file, found, place(file, found.line)


def place(file: File, line: int) -> str:
    return f"{file.module}:{line}"


def not_down(files: Files, floors: Mapping[str, int]) -> list[str]:
    """Imports of another room that is not on a lower floor; the roof is on top."""
    roof, found = max(floors.values()) + 1, []
    for file, taken, where in each_import(files):
        here, there = floors.get(file.room, roof), floors.get(room_of(taken.module), roof)
        if room_of(taken.module) != file.room and there >= here:
            found.append(f"{where} imports {taken.module}, on floor {there} from floor {here}")
    return list(dict.fromkeys(found))


def past_the_door(files: Files) -> list[str]:
    """Imports of another folder that reach past its package, or for what that does not hand on."""
    found = []
    for file, taken, where in each_import(files):
        door = door_of(file, taken.module)
        if door is None:
            continue
        if door != taken.module or door not in files:
            found.append(f"{where} imports {taken.module} and not {door}")
        elif is_door(files[door]) and taken.name not in {None, *files[door].handed_on}:
            found.append(f"{where} imports {taken.name}, which is not in {door}.__all__")
    return found


def door_of(file: File, module: str) -> str | None:
    """The outermost package around a module, or the module, that the file is not itself inside."""
    parts = module.split(".")
    around = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return next((p for p in around if not f"{file.folder}.".startswith(f"{p}.")), None)


def is_door(file: File) -> bool:
    """Whether only names in ``__all__`` may be taken: a folder, or a file outside of all."""
    return file.is_package or file.module.count(".") == 1


def private_of_others(files: Files) -> list[str]:
    """Names with a leading underscore that another file has written, read or imported."""
    everywhere = set().union(*(file.private_names for file in files.values()))
    found = [
        f"{place(file, node.lineno)} reads {ast.unparse(node)}"
        for file in files.values()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute) and not is_own(node.value)
        if node.attr in everywhere - file.private_names
    ]
    return found + [
        f"{where} imports {taken.module}.{taken.name}"
        for _, taken, where in each_import(files)
        if taken.name is not None and is_private(taken.name)
    ]


def unopened(package: Path) -> list[str]:
    """Folders without an ``__init__`` that opens with a sentence on one line."""
    found = []
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        opening = folder / "__init__.py"
        doc = ast.get_docstring(ast.parse(opening.read_text())) if opening.exists() else None
        first, _, rest = (doc or "").partition("\n")
        if not first.endswith(".") or (rest and not rest.startswith("\n")):
            found.append(str(folder.relative_to(package.parent)))
    return found


FILES = read(ROOT / "nfvi")
FLOORS = read_floors(PAGE.read_text(encoding="utf-8"))


class TestPackage:
    def test_every_room_is_on_a_floor(self):
        assert set(FLOORS) == {file.room for file in FILES.values()} - {ROOF}

    def test_floors_are_counted_from_the_ground(self):
        assert set(FLOORS.values()) == set(range(1, max(FLOORS.values()) + 1))

    def test_imports_go_down(self):
        assert not_down(FILES, FLOORS) == []

    def test_there_is_no_circle_of_files(self):
        assert circles(FILES) == []

    def test_folders_are_entered_through_their_package(self):
        assert past_the_door(FILES) == []

    def test_private_names_stay_in_their_file(self):
        assert private_of_others(FILES) == []

    def test_every_folder_opens_with_a_sentence(self):
        assert unopened(ROOT / "nfvi") == []


TINY = {
    "__init__.py": '"""All."""\nfrom tiny.top import Top\n',
    "ground.py": '"""Low."""\n__all__ = ["low"]\nlow, high = 1, 2\n',
    "middle/__init__.py": '"""Between."""\nfrom tiny.middle.a import A\n__all__ = ["A"]\n',
    "middle/a.py": "from tiny.ground import low\nclass A:\n    _own = low\n",
    "middle/b.py": "from tiny.middle.a import A\nclass B(A):\n    x = A()\n",
    "middle/inner/__init__.py": '"""In."""\nfrom tiny.middle.inner.c import C\n__all__ = ["C"]\n',
    "middle/inner/c.py": "from tiny.middle.a import A\nclass C(A):\n    _c = 1\n",
    "side.py": '"""Beside the middle."""\n__all__ = []\n',
    "top/__init__.py": '"""High."""\nfrom tiny.top.top import Top\n__all__ = ["Top"]\n',
    "top/top.py": "from tiny.middle import A\nclass Top(A):\n    y = A.x\n",
}
TINY_FLOORS = {"ground": 1, "middle": 2, "side": 2, "top": 3}


@pytest.fixture
def tiny(tmp_path):
    """A made-up package of three floors with nothing wrong, and lines added to its files."""

    def build(**more):
        for name, text in TINY.items():
            path = tmp_path / "tiny" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            key = name.removesuffix(".py").replace("/", "_")
            path.write_text(text + more.pop(key, ""))
        assert not more, "no such file"
        return read(tmp_path / "tiny")

    return build


class TestChecker:
    """What each check finds, and that it finds nothing else in the made-up package."""

    def test_nothing_is_takenwhere_nothing_is_wrong(self, tiny, tmp_path):
        files = tiny()
        assert len(files) == len(TINY)
        assert not_down(files, TINY_FLOORS) == circles(files) == []
        assert past_the_door(files) == private_of_others(files) == []
        assert unopened(tmp_path / "tiny") == []

    @pytest.mark.parametrize(
        "line",
        [
            "from tiny.top import Top\n",
            "import tiny.top\n",
            "from tiny import top\n",
            "from ..top import Top\n",
            "def f():\n    from tiny.top import Top\n",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tiny.top import Top\n",
        ],
    )
    def test_upward_import(self, tiny, line):
        at = 4 + line.count("\n", 0, line.rindex("import"))
        found = not_down(tiny(middle_b=line), TINY_FLOORS)
        assert found == [f"tiny.middle.b:{at} imports tiny.top, on floor 3 from floor 2"]

    def test_import_of_the_roof(self, tiny):
        files = tiny(top_top="import tiny\n")
        assert not_down(files, TINY_FLOORS) == [
            "tiny.top.top:4 imports tiny, on floor 4 from floor 3"
        ]

    def test_import_on_the_same_floor(self, tiny):
        found = not_down(tiny(side="from tiny.middle import A\n"), TINY_FLOORS)
        assert found == ["tiny.side:3 imports tiny.middle, on floor 2 from floor 2"]

    def test_circle_for_types_alone(self, tiny):
        line = (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tiny.middle.b import B\n"
        )
        assert circles(tiny(middle_a=line)) == ["tiny.middle.a <-> tiny.middle.b"]

    def test_circle_in_a_function(self, tiny):
        line = "def late():\n    from tiny.middle.b import B\n"
        assert circles(tiny(middle_a=line)) == ["tiny.middle.a <-> tiny.middle.b"]

    def test_circle_through_the_package(self, tiny):
        """A file that asks its own package for a name waits for itself."""
        files = tiny(middle_b="from tiny.middle import A\n", middle_a="from tiny.middle import b\n")
        assert circles(files) == ["tiny.middle <-> tiny.middle.a <-> tiny.middle.b"]

    def test_import_past_the_package(self, tiny):
        files = tiny(top_top="from tiny.middle.a import A\n")
        assert past_the_door(files) == ["tiny.top.top:4 imports tiny.middle.a and not tiny.middle"]

    def test_import_of_a_subfolder_of_another_folder(self, tiny):
        found = past_the_door(tiny(top_top="from tiny.middle.inner import C\n"))
        assert found == ["tiny.top.top:4 imports tiny.middle.inner and not tiny.middle"]

    def test_import_past_the_package_of_a_subfolder(self, tiny):
        found = past_the_door(tiny(middle_b="from tiny.middle.inner.c import C\n"))
        assert found == ["tiny.middle.b:4 imports tiny.middle.inner.c and not tiny.middle.inner"]
        assert past_the_door(tiny(middle_b="from tiny.middle.inner import C\n")) == []

    @pytest.mark.parametrize(
        "line", ["from tiny.ground import high\n", "from tiny.ground import *\n"]
    )
    def test_import_of_what_is_not_handed_on(self, tiny, line):
        (found,) = past_the_door(tiny(top_top=line))
        assert found.startswith("tiny.top.top:4 imports ")
        assert found.endswith(", which is not in tiny.ground.__all__")

    def test_private_name_of_another_file(self, tiny):
        files = tiny(
            top_top="    z = A()._own\n",
            middle_b="    z = A._own\n    _mine = 1\n    y = x._mine\n",
        )
        assert private_of_others(files) == [
            "tiny.middle.b:4 reads A._own",
            "tiny.top.top:4 reads A()._own",
        ]

    def test_private_name_of_a_base_class_is_ones_own(self, tiny):
        assert private_of_others(tiny(top_top="    def f(self):\n        return self._own\n")) == []

    def test_private_name_that_is_imported(self, tiny):
        found = private_of_others(tiny(middle_b="from tiny.middle.a import _hidden\n"))
        assert found == ["tiny.middle.b:4 imports tiny.middle.a._hidden"]

    def test_folder_without_a_sentence(self, tiny, tmp_path):
        tiny()
        (tmp_path / "tiny" / "side").mkdir()
        (tmp_path / "tiny" / "side" / "x.py").write_text("x = 1\n")
        (tmp_path / "tiny" / "top" / "__init__.py").write_text("import tiny\n")
        assert unopened(tmp_path / "tiny") == ["tiny/side", "tiny/top"]

    def test_drawing(self):
        page = "11 │ cli │  the shell\n   ├───┤\n 2 │ flows │ targets   │\n 1 │ errors │ \n"
        assert read_floors(page) == {"cli": 11, "flows": 2, "targets": 2, "errors": 1}
        with pytest.raises(AssertionError, match="two floors"):
            read_floors(f"{page} 3 │ cli │\n")
