"""Files that a stopped fit can go on from."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import ClassVar

from nfvi.training.state import Callback, Stop, TrainState
from nfvi.utils import check_whole, next_multiple, write_file

__all__ = ["Checkpoint"]


class Checkpoint(Callback):
    """Writes the whole state of a fit to a file, for :meth:`nfvi.NFVI.resume`.

    The file holds parameters, optimiser, random numbers, history and what the other callbacks have
    recorded, but no code: the target and the callbacks are given again. It is replaced as a whole
    after every ``every`` steps and at the end, also after Ctrl-C; a process killed while it is
    written leaves the file before. After an error the last file stays as it is. A file that cannot
    be written, as on a full disk, is a warning: the fit continues. Of the processes of a group, the
    first one writes it. Whatever its place in
    ``callbacks=``, this one is called last, so that the file holds all of a step.

    Args:
        path: the file; an older one is replaced.
        every: steps between files, at least 1.

    Raises:
        ValueError: ``every`` is not an integer of at least 1.
        OSError: at the start of the fit, the folder of ``path`` is not there, or ``path`` is one.

    Example:
        >>> fit = NFVI("planar*8").fit(pot1, callbacks=[Checkpoint("pot1.ckpt")])  # doctest: +SKIP
        >>> fit = NFVI.resume("pot1.ckpt").fit(pot1)  # doctest: +SKIP
    """

    goes_last: ClassVar[bool] = True

    def __init__(self, path: str | os.PathLike[str], every: int = 500) -> None:
        check_whole("every", every, 1)
        self.path, self.every = Path(path), every

    def open(self, state: TrainState) -> None:
        folder = self.path.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(
                f"Checkpoint: there is no folder {str(folder)!r}; make it first"
            )
        if self.path.is_dir():
            raise IsADirectoryError(
                f"Checkpoint: {str(self.path)!r} is a folder; name a file in it"
            )

    def next_look(self, step: int) -> int:
        return next_multiple(step, self.every)

    def __call__(self, state: TrainState) -> Stop | None:
        if state.step % self.every == 0:
            self._write(state)
        return None

    def close(self, state: TrainState) -> None:
        if state.stopped is not None:
            self._write(state)

    def _write(self, state: TrainState) -> None:
        if not state.first:
            return
        tensors, values = state.snapshot()
        try:
            write_file(self.path, "checkpoint", tensors, values)
        except OSError as error:
            left = "the file before stays" if self.path.is_file() else "there is none yet"
            warnings.warn(
                f"Checkpoint: no file was written at step {state.step} ({error}); the fit"
                f" continues, and {left}",
                UserWarning,
                stacklevel=2,
            )
