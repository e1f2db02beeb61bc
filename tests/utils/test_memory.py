"""What is freed stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from nfvi.utils import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
def steps(n):
    for _ in range(n):
        blocks = [torch.ones(75_000, device="cpu") for _ in range(60)]
        del blocks
steps(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of twenty steps that take and free 60 blocks of 0.3 MB, in a new process."""
    without = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    command = [sys.executable, "-c", SCRIPT, how]
    return int(subprocess.run(command, env=without, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_block_that_was_freed_serves_the_next() -> None:
    assert faults("kept") < 200
