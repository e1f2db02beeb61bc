"""What ``--out`` leaves: whole files, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nfvi.cli.files import Folder


class BrokenFigure:
    """A picture whose drawing ends half-way."""

    def savefig(self, path: Path, dpi: int) -> None:
        assert path.suffix == ".png"
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")


class Numbers:
    """An array that cannot be written whole."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise OSError(28, "No space left on device")


class Half:
    """A tensor of a site, as far as a folder asks."""

    def detach(self) -> Half:
        return self

    cpu = detach

    def numpy(self) -> Any:
        return Numbers()


WRITES: dict[str, Callable[[Folder], None]] = {
    "history.png": lambda folder: folder._figure("history.png", BrokenFigure()),
    "draws.npz": lambda folder: folder.draws("draws.npz", {"z": Half()}),
    "table.txt": lambda folder: folder.text("table.txt", "\ud800"),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_cannot_be_written_whole_leaves_the_file_before(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"before")
    folder = Folder(tmp_path)
    with pytest.raises((OSError, UnicodeEncodeError)) as caught:
        WRITES[name](folder)
    assert not isinstance(caught.value, OSError) or name in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == [name] and not folder.written
    assert (tmp_path / name).read_bytes() == b"before"


def test_what_is_written_is_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.text("a.txt", "ä\n\n")
    folder.draws("b.npz", {"x": torch.ones(2)})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ä\n"
    assert np.load(tmp_path / "b.npz")["x"].tolist() == [1.0, 1.0]
    assert {f.name for f in tmp_path.iterdir()} == {"a.txt", "b.npz"}
