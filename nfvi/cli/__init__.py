"""The command line."""

from nfvi.cli.app import app

__all__ = ["app"]
