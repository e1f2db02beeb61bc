"""The version of nfvi, known also in a checkout that was never installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]


def _installed() -> str:
    try:
        return version("nfvi")
    except PackageNotFoundError:
        return "0+unknown"


__version__ = _installed()
