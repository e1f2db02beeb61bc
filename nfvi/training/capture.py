"""Recording what a function does on a CUDA device, to repeat it without Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import TypeAlias, TypeVar

import torch

from nfvi.utils import process_wide

__all__ = ["Capture", "CaptureError", "attempted", "cuda_graph"]

T = TypeVar("T")
Capture: TypeAlias = Callable[
    [Callable[[], None], torch.device, torch.Generator | None], Callable[[], object]
]
"""From a function, the device that it works on and what it draws with, to what does it again."""

# The first run of an operation may choose an algorithm or ask for memory, which a graph cannot;
# PyTorch's own helper for graphs warms up as often.
WARM_UP = 3


class CaptureError(RuntimeError):
    """Something cannot be captured or replayed; the message says why."""


def attempted(function: Callable[[], T]) -> T:
    """What a function returns, with whatever it raises as one kind of error.

    Raises:
        CaptureError: it raised.
    """
    try:
        return function()
    except CaptureError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise CaptureError(f"{type(error).__name__}: {lines[0]}"[:200]) from error


def cuda_graph(
    function: Callable[[], None], device: torch.device, generator: torch.Generator | None = None
) -> Callable[[], object]:
    """Capture a function of tensors that lie on a CUDA device, as one graph of kernels.

    It is run three times before, on a stream of its own.

    Args:
        function: what is captured.
        device: where.
        generator: of the device, that it draws with; each replay draws on from where it is then.
    """
    # Another thread that sets the random state would spoil this one.
    with process_wide(), torch.cuda.device(device):
        side = _side_stream(threading.get_ident(), torch.cuda.current_device())
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.random.fork_rng([torch.cuda.current_device()]):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        # What other threads do on the device meanwhile is no error.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            function()
    replay: Callable[[], object] = graph.replay
    return replay


@cache
def _side_stream(thread: int, index: int) -> torch.cuda.Stream:
    """The stream of a thread to capture on: always one, as cuBLAS keeps 32 MB for each for good."""
    return torch.cuda.Stream(index)
