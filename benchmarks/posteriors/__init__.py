"""Fits, NUTS and the truth on posteriors with known answers; the command is ``__main__.py``."""
