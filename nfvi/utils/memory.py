"""Whether what is asked for fits into memory, and that a process keeps what it has had."""

from __future__ import annotations

import os

import torch

__all__ = ["check_memory", "keep_freed_memory", "memory_of"]

# glibc adapts to blocks of less than 32 MiB.
LARGEST_KEPT = 32 * 2**20 - 2**16


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


def keep_freed_memory() -> None:
    """Let the memory that a step frees serve the next one.

    The allocator of glibc gives blocks back to the system at once if they are larger than the
    largest that was freed so far, and every page of the next one is a fault then: 580 of them, and
    a quarter of the time, in a step of ``monotone*2`` on pot1 with 8 restarts of 256 draws. So one
    large block is taken and freed, untouched. With other allocators it changes nothing.

    Source: mallopt(3), on the dynamic threshold of ``M_MMAP_THRESHOLD``.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8, device="cpu")
