"""The date, machine and versions that a benchmark ran with."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version

__all__ = ["describe_environment", "describe_machine"]


def describe_environment(*others: str) -> str:
    """One line for the top of a benchmark's output, with the versions of other packages too."""
    import torch

    threads = f"{torch.get_num_threads()} torch threads"
    return describe_machine(threads, "nfvi", "torch", "pyro-ppl", *others)


def describe_machine(threads: str, *packages: str) -> str:
    """The same for any packages, without an import of torch; ``threads`` is a remark on those."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{datetime.date.today().isoformat()}, {_cpu_name()}, {os.cpu_count()} cores, {threads},"
        f" Python {platform.python_version()}, {versions}"
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
