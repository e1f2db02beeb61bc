"""What the steps of a chunk read and record, in tables on the device that a counter there walks."""

from __future__ import annotations

import copy
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ChunkTables", "single"]


def single(value: float) -> float:
    """The float32 next to a number."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


class ChunkTables:
    """Learning rate and β of each step of a chunk, and its rows of the history.

    A step finds its row by a counter on the device, so that no number of the host goes into it. The
    counter stops at the last row: past that, a step would write over memory that is not its own.

    Args:
        rows: the longest chunk.
        fields: columns of the history.
        like: the parameters (R, P).
        dtype: of the history.

    Attributes:
        at: the row of the next step (1).
    """

    def __init__(self, rows: int, fields: int, like: Tensor, dtype: torch.dtype) -> None:
        restarts = len(like)
        self.at = like.new_zeros(1, dtype=torch.int64)
        # As a kernel reads a rate from memory, whatever the dtype of the parameters is.
        self._lr = like.new_zeros(rows, dtype=torch.float32)
        self._beta = like.new_zeros(rows, restarts)
        self._record = like.new_zeros((rows, fields, restarts), dtype=dtype)
        self._running = like.new_zeros(rows, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self._lr)

    def tensors(self) -> list[Tensor]:
        """All of them, in the order that :meth:`made_of` takes."""
        return [self.at, self._lr, self._beta, self._record, self._running]

    def made_of(self, tensors: Sequence[Tensor]) -> ChunkTables:
        """The same of other tensors."""
        other = copy.copy(self)
        other.at, other._lr, other._beta, other._record, other._running = tensors
        return other

    def fill(self, lr: Sequence[float], beta: Tensor) -> None:
        """Begin a chunk: the learning rate of each of its steps, and β (steps, R).

        Raises:
            ValueError: there are more steps than rows.
        """
        if len(lr) > len(self):
            raise ValueError(f"a chunk of {len(lr)} steps in tables of {len(self)} rows")
        self._lr[: len(lr)].copy_(torch.tensor(lr, dtype=torch.float32, device="cpu"))
        self._beta[: len(beta)].copy_(beta)
        self.at.zero_()

    def now(self) -> tuple[Tensor, Tensor]:
        """Learning rate () and β (R) of the step that the counter is at."""
        return self._lr.index_select(0, self.at)[0], self._beta.index_select(0, self.at)[0]

    def write(self, row: Tensor, running: Tensor) -> None:
        """Record a step (fields, R), and whether any restart goes on (); then go on to the next."""
        self._record.index_copy_(0, self.at, row.to(self._record.dtype).unsqueeze(0))
        self._running.index_copy_(0, self.at, running.reshape(1))
        self.at.add_(1).clamp_(max=len(self) - 1)

    def done(self, steps: int) -> int:
        """How many of so many steps there were until no restart went on; waits for the device."""
        running = self._running[:steps].tolist()
        return running.index(False) + 1 if False in running else steps

    def record(self, steps: int) -> Tensor:
        """A copy of the rows of the first steps (steps, fields, R)."""
        return self._record[:steps].clone()
