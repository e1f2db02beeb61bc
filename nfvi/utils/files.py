"""Files of nfvi: safetensors with a JSON header; written whole or not at all, read without code."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nfvi.errors import FitError
from nfvi.utils.checks import usable_device

__all__ = ["complete", "digest_of", "over", "read_file", "under", "whole_file", "write_file"]

VERSION = 2
"""Files of version 1 hold no digest."""
_KEY, _DIGEST = "nfvi", "nfvi_sha256"
READERS = {"fit": "Fit.load", "density": "DensityFit.load", "checkpoint": "NFVI.resume"}
# What values that are wrong in kind or number raise on their way to an object.
_MISFITS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


def write_file(
    path: str | os.PathLike[str], kind: str, tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Write tensors and JSON-able values; an older file stays until the new one is complete.

    The header keeps the SHA-256 of all of them, which :func:`read_file` checks.

    Args:
        path: the file; its folder must exist.
        kind: ``"fit"``, ``"density"`` or ``"checkpoint"``, checked when the file is read.
        tensors: name -> tensor, of any device.
        values: what :func:`json.dumps` can write.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(path.parent)!r} to write {path.name!r} in")
    text = json.dumps({"version": VERSION, "kind": kind, **values})
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with whole_file(path) as draft:
        # What save_file makes may be read by its owner alone; new files here may by others.
        permissions = draft.stat().st_mode
        try:
            save_file(stored, draft, metadata={_KEY: text, _DIGEST: digest_of(text, stored)})
        except SafetensorError as error:
            found = re.search(r"os error (\d+)", str(error))
            code = int(found[1]) if found else errno.EIO
            raise OSError(code, os.strerror(code) if found else str(error)) from error
        draft.chmod(permissions)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes its place once the block is through.

    After an error the draft is removed, and an older file stays as it was. The draft ends in the
    name of the file, and so in its suffix.

    Raises:
        OSError: one in the block, such as that of a full disk, with the name of the file; or the
            path is that of a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "cannot write the file: this is no regular file", str(path))
    draft = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        draft.touch(exist_ok=False)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        why = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write the file: {why}", str(path)) from error
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
        FitError: the file is truncated or damaged, not from nfvi, of another kind or of a newer
            version.
        ValueError: there is no such device here.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    device = usable_device("map_location", map_location)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            values = _header(path, kind, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FitError(
            f"{str(path)!r} is not a whole safetensors file ({error}); was it cut short?"
        ) from error
    _check_digest(path, values, metadata, tensors)
    return {name: tensor.to(device) for name, tensor in tensors.items()}, values


@contextmanager
def complete(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """For the block in which what a file holds becomes an object.

    Raises:
        FitError: the block raised what values raise that are missing, of a wrong type or of
            another fit; it names the file, and the entry as far as the error did.
    """
    try:
        yield
    except FitError:
        raise
    except _MISFITS as error:
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise FitError(f"{str(path)!r} is not a complete {kind} ({what})") from error


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a header and of tensors on the CPU, with their names, types and shapes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def over(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names with a prefix, as they stand in a file beside others."""
    return {prefix + name: value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors whose names have a prefix, by their names without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _header(path: Path, kind: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        values = json.loads(metadata[_KEY])
        version, found = values["version"], values["kind"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FitError(f"{str(path)!r} was not written by nfvi") from error
    if type(version) is not int or version < 1 or not isinstance(found, str):
        raise FitError(f"{str(path)!r} was not written by nfvi")
    if version > VERSION:
        raise FitError(
            f"{str(path)!r} has file version {version}, and this nfvi reads up to {VERSION}:"
            " update nfvi to read it"
        )
    if found != kind:
        reader = READERS.get(found, "another function")
        raise FitError(f"{str(path)!r} holds a {found}, not a {kind}; read it with {reader}")
    return dict(values)


def _check_digest(
    path: Path, values: Mapping[str, Any], metadata: Mapping[str, str], tensors: dict[str, Tensor]
) -> None:
    """Check what was read against the digest, which files of version 1 do not have."""
    there = metadata.get(_DIGEST)
    if values["version"] == 1 and there is None:
        return
    if there != digest_of(metadata[_KEY], tensors):
        raise FitError(
            f"{str(path)!r} is damaged: its tensors and header are not those that were written"
            f" (their SHA-256 differs from {_DIGEST!r} in the header); take another copy of it"
        )
