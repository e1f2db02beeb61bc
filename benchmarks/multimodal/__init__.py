"""Fits of targets with several modes or narrow parts; the command is ``__main__.py``."""
