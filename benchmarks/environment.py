"""The date, machine and versions that a benchmark ran with."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version

import torch

__all__ = ["describe_environment"]


def describe_environment(*others: str) -> str:
    """One line for the top of a benchmark's output, with the versions of other packages too."""
    cpu = _cpu_name()
    names = ("nfvi", "torch", "pyro-ppl", *others)
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{datetime.date.today().isoformat()}, {cpu}, {os.cpu_count()} cores,"
        f" {torch.get_num_threads()} torch threads, Python {platform.python_version()}, {packages}"
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
