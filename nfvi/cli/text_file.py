"""The text of a file, unpacked and decoded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path

__all__ = ["text_of"]

# What the modules raise for bytes that are damaged, cut short, of another kind or locked.
DAMAGED = (
    *(EOFError, OSError, RuntimeError, ValueError),
    *(lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)


def text_of(path: Path) -> str:
    """The text of a file, its lines ended by newlines.

    Args:
        path: a file that ends in ``.gz``, ``.bz2``, ``.xz`` or ``.zip`` is unpacked. Bytes that are
            not UTF-8, with or without a mark at the start, are taken as Latin-1.

    Raises:
        ValueError: it cannot be unpacked, or holds no text.
    """
    data = _unpacked(path)
    if b"\0" in data:
        raise ValueError(
            f"{str(path)!r} is not a text file with rows of numbers (it has bytes that are 0)"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return io.StringIO(text, newline=None).read()


def _unpacked(path: Path) -> bytes:
    data, ending = path.read_bytes(), path.suffix.lower()
    if ending not in UNPACK:
        return data
    try:
        return UNPACK[ending](data)
    except DAMAGED as error:
        raise ValueError(f"{str(path)!r} cannot be unpacked ({error})") from error


def _unzipped(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files, and one is needed")
        return archive.read(names[0])


UNPACK = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zip": _unzipped,
}
