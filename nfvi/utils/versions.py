"""The versions that a report of a bug needs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from nfvi._version import __version__

__all__ = ["show_versions", "versions"]

REQUIRED = (
    *("pyro-ppl", "arviz-base", "arviz-stats", "numpy", "scipy", "pandas", "xarray"),
    *("lark", "safetensors", "tqdm", "typer"),
)
EXTRAS = (
    *("matplotlib", "jinja2", "arviz", "scikit-learn", "tensorboard", "ipywidgets", "jax"),
    *("numpyro", "funsor", "pymc", "pytensor", "numba", "bridgestan", "httpstan"),
)


def versions() -> list[tuple[str, str]]:
    """nfvi, Python, the platform, PyTorch and the packages that nfvi works with, with versions."""
    return [
        ("nfvi", __version__),
        ("Python", platform.python_version()),
        ("platform", f"{platform.platform()}, {_count(os.cpu_count() or 0, 'core')}"),
        ("torch", f"{torch.__version__}, {_cuda()}, {_count(torch.get_num_threads(), 'thread')}"),
        *((name, _version(name)) for name in (*REQUIRED, *EXTRAS)),
    ]


def show_versions() -> None:
    """Print the versions of nfvi, Python, PyTorch and all that nfvi works with.

    A package that is missing is ``not installed``. None is imported to ask for its version.

    Example:
        >>> show_versions()  # doctest: +ELLIPSIS
        nfvi          ...
        Python        ...
    """
    rows = versions()
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}}  {value}" for name, value in rows))  # noqa: T201


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    """What PyTorch was built with, and the devices it finds; none of them is touched."""
    if torch.version.cuda is None:
        return "no CUDA"
    return f"CUDA {torch.version.cuda} with {_count(torch.cuda.device_count(), 'device')}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
