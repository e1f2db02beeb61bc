"""Files of nfvi: safetensors with a JSON header; written whole or not at all, read without code."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nfvi.errors import FitError
from nfvi.utils.checks import usable_device

__all__ = ["over", "read_file", "under", "write_file"]

VERSION = 1
_KEY = "nfvi"


def write_file(
    path: str | os.PathLike[str], kind: str, tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Write tensors and JSON-able values; an older file stays until the new one is complete.

    Args:
        path: the file; its folder must exist.
        kind: ``"fit"``, ``"density"`` or ``"checkpoint"``, checked when the file is read.
        tensors: name -> tensor, of any device.
        values: what :func:`json.dumps` can write.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(path.parent)!r} to write {path.name!r} in")
    header = {_KEY: json.dumps({"version": VERSION, "kind": kind, **values})}
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    draft.touch(exist_ok=False)
    # What save_file makes may be read by its owner alone; a new file here has other permissions.
    permissions = draft.stat().st_mode
    try:
        save_file(stored, draft, metadata=header)
        draft.chmod(permissions)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read_file(
    path: str | os.PathLike[str], kind: str, map_location: torch.device | str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by :func:`write_file`.

    Args:
        path: the file.
        kind: what it must hold.
        map_location: device of the tensors; default the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        FitError: the file is truncated, not from nfvi, of another kind or of a newer version.
        ValueError: there is no such device here.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    device = str(usable_device("map_location", map_location))
    try:
        with safe_open(path, framework="pt", device=device) as file:
            values = _header(path, kind, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FitError(
            f"{str(path)!r} is not a whole safetensors file ({error}); was it cut short?"
        ) from error
    return tensors, values


def over(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names with a prefix, as they stand in a file beside others."""
    return {prefix + name: value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors whose names have a prefix, by their names without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _header(path: Path, kind: str, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        values = json.loads(metadata[_KEY])
        version, found = int(values["version"]), str(values["kind"])
    except (KeyError, ValueError, TypeError) as error:
        raise FitError(f"{str(path)!r} was not written by nfvi") from error
    if version > VERSION:
        raise FitError(
            f"{str(path)!r} has file version {version}, and this nfvi reads up to {VERSION}:"
            " update nfvi to read it"
        )
    if found != kind:
        readers = {
            "fit": "Fit.load",
            "density": "DensityFit.load",
            "checkpoint": "NFVI.resume",
        }
        reader = readers.get(found, "another function")
        raise FitError(f"{str(path)!r} holds a {found}, not a {kind}; read it with {reader}")
    return dict(values)
