"""Whether what is asked for fits into memory at all, judged before anything is allocated."""

from __future__ import annotations

import os

import torch

__all__ = ["check_memory", "memory_of"]


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a device has in all; ``None`` where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def check_memory(what: str, needed: int, device: torch.device, advice: str) -> None:
    """Check that a device has as much memory as something needs at the very least.

    Args:
        what: what needs it, in words, with its numbers.
        needed: bytes.
        device: where.
        advice: what to do where there is too little.

    Raises:
        ValueError: it has less.
    """
    total = memory_of(device)
    if total is not None and needed > total:
        where = "this machine" if device.type == "cpu" else str(device)
        raise ValueError(
            f"{what} needs {needed // 10**9:,} GB of memory or more, and {where} has"
            f" {total / 1e9:.3g} GB: {advice}"
        )
