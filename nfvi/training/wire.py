"""What the processes of a group say to one another: orders, points, words, and what was found."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn

__all__ = ["DTYPES", "Lost", "Order", "Wire"]

T = TypeVar("T")

LONGEST = 1_024
"""Bytes of the words of an error."""
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Lost(BaseException):
    """A process cannot be reached any more."""


class Order(NamedTuple):
    """What process 0 says that all do next.

    Attributes:
        what: a number for it.
        length: points that follow, or bytes.
        dtype: of the points, as a place in :data:`DTYPES`.
        score: whether gradients are asked for.
    """

    what: int
    length: int
    dtype: int = 0
    score: int = 0


class Wire:
    """Messages from process 0 to all, and back.

    Args:
        device: of what is received.

    Raises:
        Lost: by every method, where a process has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def between(self) -> torch.device:
        """Where tensors are while they are sent: nccl takes them on GPUs alone."""
        nccl = distributed.get_backend() == "nccl"
        return self.device if nccl else torch.device("cpu")

    def tell(self, order: Order) -> None:
        """Say to all what they do next."""
        self._broadcast(torch.tensor(order, dtype=torch.int64, device=self.between))

    def heard(self) -> Order:
        """What process 0 says."""
        told = torch.empty(len(Order(0, 0)), dtype=torch.int64, device=self.between)
        self._broadcast(told)
        return Order(*told.tolist())

    def send_points(self, z: Tensor) -> None:
        """Points (n, d) to all."""
        self._broadcast(z.to(self.between).contiguous())

    def points(self, n: int, dim: int, dtype: int) -> Tensor:
        """Points (n, d) from process 0."""
        z = torch.empty((n, dim), dtype=DTYPES[dtype], device=self.between)
        self._broadcast(z)
        return z.to(self.device)

    def send_values(self, values: Tensor) -> None:
        """Numbers to process 0."""
        _reached(distributed.send, values.to(self.between).contiguous(), 0)

    def values(self, process: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Numbers from another process."""
        found = torch.empty(shape, dtype=dtype, device=self.between)
        _reached(distributed.recv, found, process)
        return found.to(self.device)

    def send_words(self, text: str) -> None:
        """A line to process 0."""
        sent = text.encode()[:LONGEST].ljust(LONGEST)
        self.send_values(torch.tensor(list(sent), dtype=torch.uint8))

    def words(self, process: int) -> str:
        """A line from another process."""
        found = self.values(process, (LONGEST,), torch.uint8)
        return bytes(found.tolist()).decode(errors="ignore").strip()

    def packed(self, what: Any) -> bytes:
        """An object, to be sent."""
        stream = io.BytesIO()
        _Packer(stream).dump(what)
        return stream.getvalue()

    def send(self, what: int, packed: bytes) -> None:
        """An order with an object, to all."""
        self.tell(Order(what, len(packed)))
        told = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        self._broadcast(told.to(self.between))

    def received(self, length: int) -> Any:
        """An object from process 0, on the device of this one."""
        told = torch.empty(length, dtype=torch.uint8, device=self.between)
        self._broadcast(told)
        return _Unpacker(told.cpu().numpy().tobytes(), self.device).load()

    def _broadcast(self, tensor: Tensor) -> None:
        _reached(distributed.broadcast, tensor, 0)


class _Packer(pickle.Pickler):
    """Takes tensors from other devices, whose numbers the receiver may have others for."""

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor) or obj.device.type == "cpu":
            return None
        return obj.detach().cpu(), obj.requires_grad, isinstance(obj, nn.Parameter)


class _Unpacker(pickle.Unpickler):
    """For what process 0 of the same program sent, and for no files."""

    def __init__(self, packed: bytes, device: torch.device) -> None:
        super().__init__(io.BytesIO(packed))
        self.device = device

    def persistent_load(self, pid: Any) -> Any:
        value, requires_grad, parameter = pid
        tensor = value.to(self.device)
        if parameter:
            return nn.Parameter(tensor, requires_grad)
        return tensor.requires_grad_(requires_grad)


def _reached(talk: Callable[..., T], *args: Any) -> T:
    try:
        return talk(*args)
    except RuntimeError as error:
        raise Lost from error
