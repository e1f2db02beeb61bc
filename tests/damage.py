"""Files with something wrong in them, for the tests of what is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nfvi.utils.files import digest_of

__all__ = ["contents", "edited", "sites_of", "written"]


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file, unchecked."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["nfvi"])
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


def written(
    path: Path, tensors: dict[str, Tensor], header: dict[str, Any], *, signed: bool = False
) -> Path:
    """A file with these: as version 0.1 wrote it, without a digest, or with the right one."""
    text = json.dumps({**header, "version": 2 if signed else 1})
    metadata = {"nfvi": text} | ({"nfvi_sha256": digest_of(text, tensors)} if signed else {})
    save_file(tensors, path, metadata=metadata)
    return path


def edited(
    path: Path, copy: Path, change: Callable[[dict[str, Any]], object], *, signed: bool = False
) -> Path:
    """A copy with a header that ``change`` has changed in place, written as by :func:`written`."""
    tensors, header = contents(path)
    change(header)
    return written(copy, tensors, header, signed=signed)


def sites_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value of a nested header stands, as keys and indices one after the other."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = value
    elif isinstance(value, list):
        keys = range(len(value))
    return [path, *(site for key in keys for site in sites_of(value[key], (*path, key)))]
