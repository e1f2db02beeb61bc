"""How many draws or rows are taken at once: as many as a bound on the numbers that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = [
    "Counter",
    "Numbers",
    "at_once",
    "held",
    "kept_at_once",
    "numbers_per_row",
    "sizes",
]

# 128 MB in float32 for the widest of the tensors. `scale-loc` at d = 10⁶ holds four of that size
# at a time. Up to 8 192 dimensions it cuts no piece of 4 096 draws of an element-wise flow.
HELD = 2**25
# Of all tensors that a pass with gradients writes, most of which autograd keeps: 512 MB in
# float32. `planar*8` writes 10⁸ for 256 draws at d = 1 600. Smaller pieces cost no time where
# each takes a tenth of a second.
KEPT = 2**27
# A GPU has memory to fill. A step in one piece can be captured, and one in several cannot; without
# gradients a piece of 2²⁶ numbers keeps an H100 busy for longer than it takes to begin one, and
# with 16 times as many `scale-loc` at d = 10⁶ took 9 GB after its steps, and 2 in them.
HELD_ON_A_GPU, KEPT_ON_A_GPU = 2 * HELD, 16 * KEPT
# torch draws normal numbers in blocks of 16 on the CPU: pieces of whole blocks give the very
# draws that one piece gives.
BLOCK = 16
# Their 5 and 95 % quantiles are told to a third of an sd; 128 MB at d = 10⁶.
FEWEST_HELD = 32


class Numbers(NamedTuple):
    """Numbers for each draw or row: of the widest tensor, and of all that are written."""

    widest: float
    written: float


class Counter(TorchFunctionMode):
    """Notes how many numbers the functions of torch return."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[int] = []

    @property
    def numbers(self) -> int:
        """Of all functions together."""
        return sum(self.each)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, Tensor):
                self.each.append(part.numel())
        return out


def numbers_per_row(function: Callable[[int], Any]) -> Numbers:
    """What a function of n rows makes for each further row, by two small runs without gradients.

    Work that does not depend on the rows, such as that on parameters alone, does not count.

    Args:
        function: takes n.
    """
    found = []
    for n in (2, 4):
        with torch.no_grad(), Counter() as counter:
            function(n)
        found.append(counter)
    few, more = found
    if len(few.each) != len(more.each):  # a loop that ends when all rows have settled
        return Numbers(max(more.each) / 4, more.numbers / 4)
    widest = max((b - a for a, b in zip(few.each, more.each, strict=True)), default=0) / 2
    return Numbers(widest, (more.numbers - few.numbers) / 2)


def at_once(numbers: float, most: int, device: torch.device) -> int:
    """How many draws or rows to take at once where no gradient is taken: at least 1.

    Args:
        numbers: of the widest tensor for each of them.
        most: no more than so many.
        device: where.
    """
    return _count(HELD if device.type == "cpu" else HELD_ON_A_GPU, numbers, most)


def kept_at_once(numbers: float, most: int, device: torch.device) -> int:
    """The same with gradients; ``numbers`` are those of all tensors that are written."""
    return _count(KEPT if device.type == "cpu" else KEPT_ON_A_GPU, numbers, most)


def held(n: int, dim: int) -> int:
    """How many of n draws are kept together: all, or as many as fit and no fewer than 32."""
    return n if n * dim <= HELD else min(n, max(HELD // dim, FEWEST_HELD))


def sizes(n: int, at_once: int) -> Iterator[int]:
    """The sizes of the pieces of n draws or rows."""
    return (min(at_once, n - start) for start in range(0, n, at_once))


def _count(bound: int, numbers: float, most: int) -> int:
    count = int(bound // max(numbers, 1.0))
    if count >= most:
        return max(most, 1)
    return max(count // BLOCK * BLOCK or count, 1)
