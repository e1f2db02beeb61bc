"""What a worker process takes over from the process that started it."""

from __future__ import annotations

import torch

__all__ = ["set_up_worker"]


def set_up_worker(threads: int, default_dtype: torch.dtype) -> tuple[int, torch.dtype]:
    """Set the number of threads and torch's default dtype; what they were before.

    Only for processes of nfvi's own, which run nothing else meanwhile. Sums of many numbers depend
    on the threads in their last digits, and ``torch.tensor(1.0)`` in a model on the dtype.
    """
    before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(threads)
    torch.set_default_dtype(default_dtype)
    return before
