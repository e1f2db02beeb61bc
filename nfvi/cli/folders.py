"""The folder of ``--out``: there before the run, and gone after it where the run left nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["results_folder"]


@contextmanager
def results_folder(path: Path | None) -> Iterator[Path | None]:
    """Make the folder of results, and hand on its absolute path.

    A target may change the current folder, so that a relative path would mean another one later.
    What is made here and still empty at the end is removed; what was there before stays.

    Args:
        path: the folder, or ``None`` for none.

    Raises:
        OSError: the folder cannot be made, or is a file.
    """
    if path is None:
        yield None
        return
    path = path.absolute()
    if path.is_file():
        raise FileExistsError(f"--out {str(path)!r} is a file; give the path of a folder")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    finally:
        for folder in made:
            _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # it holds something, or was never made
        return
