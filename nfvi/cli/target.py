"""Finding a target that is named on the command line."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from nfvi.errors import TargetError
from nfvi.targets import Target, as_target, declared_parameters
from nfvi.utils import place_of

__all__ = ["load_target", "sent_whole"]

OWN = "_nfvi_target_"
"""How the modules of files are named, so that random.py does not stand in for Python's."""


@contextmanager
def load_target(text: str) -> Iterator[Any]:
    """The object that ``path/to/file.py:name`` or ``package.module:name`` means.

    A function whose arguments have supports or priors as defaults becomes a density of named
    parameters, and so does one that ``PARAMETERS = {"name": {...}}`` beside it tells of.

    A file is run as Python runs it: its folder is on the path, or, for a file of a package, the
    folder that the package is in; for a module, the current folder is. This holds until the context
    ends, since a function may import when it is called.

    Args:
        text: the place.

    Raises:
        ValueError: the text has another form, the name is not there, or the file is no Python.
        TargetError: the file raised while it was imported, or its ``PARAMETERS`` are not by
            function.
        FileNotFoundError: there is no such file.
        ImportError: the module, or one that it needs, cannot be imported.
    """
    place, colon, name = text.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise ValueError(
            f"{text!r} names no target: write path/to/file.py:name or package.module:name"
        )
    path = Path(place)
    is_file = path.suffix == ".py" or path.is_file() or len(path.parts) > 1
    before = sys.path.copy()
    try:
        try:
            module = _from_file(path) if is_file else _from_module(place)
        except SyntaxError as error:
            raise ValueError(
                f"{error.filename}, line {error.lineno}: {error.msg}; {place!r} cannot be read"
            ) from error
        except (ImportError, FileNotFoundError):
            raise
        except Exception as error:
            raise TargetError(
                f"{place!r} raised {type(error).__name__} while it was imported:"
                f" {error}{place_of(error)}"
            ) from error
        yield _with_parameters(module, _member(module, name, place), name)
    finally:
        sys.path[:] = before


@contextmanager
def sent_whole() -> Iterator[None]:
    """While it is entered, what a file defines goes to other processes whole, not by its name.

    They find modules by the path of this process, and those of files nowhere.
    """
    own = [module for name, module in sys.modules.items() if name.startswith(OWN)]
    with ExitStack() as stack:
        for pickler in _picklers():
            for module in own:
                pickler.register_pickle_by_value(module)
                stack.callback(pickler.unregister_pickle_by_value, module)
        yield


def _picklers() -> Iterator[ModuleType]:
    """What joblib sends functions by: before its version 1.6 a copy of its own, else the library.

    There is none where joblib is not installed, and whoever wants other processes says so.
    """
    for name in ("joblib.externals.cloudpickle", "cloudpickle"):
        with suppress(ImportError):
            yield importlib.import_module(name)


def _from_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ImportError(
            f"there is no module {error.name!r}, looked for in this folder and among what is"
            " installed"
        ) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    path = path.resolve()
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    sys.path.insert(0, str(root))
    if len(parts) > 1:
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        if module.__file__ is not None and Path(module.__file__).resolve() == path:
            return module
    spec = importlib.util.spec_from_file_location(f"{OWN}{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _member(module: ModuleType, name: str, place: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    there = [n for n, x in vars(module).items() if _offered(module, n, x)]
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.8)
    hint = f"did you mean {near[0]!r}? " if near else ""
    names = f"there are {', '.join(sorted(there))}" if there else "it defines no function"
    raise ValueError(f"{place!r} has no {name!r}; {hint}{names}")


def _with_parameters(module: ModuleType, found: Any, name: str) -> Any:
    """What was found, or its density of named parameters where the module tells of some."""
    if isinstance(found, Target) or not callable(found):
        return found
    beside = getattr(module, "PARAMETERS", None)
    told = beside.get(name) if isinstance(beside, Mapping) else None
    if isinstance(beside, Mapping) and not any(isinstance(x, Mapping) for x in beside.values()):
        raise TargetError(
            f"PARAMETERS beside {name!r} must map names of functions to their parameters, as in"
            f" PARAMETERS = {{{name!r}: {{'tau': 'positive', 'beta': 3}}}}; its keys are"
            f" {', '.join(map(repr, beside))}"
        )
    parameters = declared_parameters(found) if told is None else told
    return found if parameters is None else as_target(found, parameters=parameters)


def _offered(module: ModuleType, name: str, value: Any) -> bool:
    if hasattr(module, "__all__"):
        return name in module.__all__ and callable(value)
    own = isinstance(value, Target) or getattr(value, "__module__", "") == module.__name__
    return own and callable(value) and not name.startswith("_")
