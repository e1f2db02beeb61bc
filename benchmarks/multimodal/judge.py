"""Whether a fit is right, and whether it says so where it is not."""

from __future__ import annotations

from typing import Literal, TypeAlias

from benchmarks.posteriors.store import Row

__all__ = ["CLASSES", "Class", "class_of", "counted"]

Class: TypeAlias = Literal["right", "said", "SILENT", "crashed", "unknown"]
CLASSES: tuple[Class, ...] = ("right", "said", "SILENT", "crashed", "unknown")

MEAN_ERROR = 0.2
"""sds."""
SD_ERROR = 0.2
LOG_Z_ERROR = 0.1
"""Nats, beside the standard error of the log Z that is compared with."""


def counted(row: Row) -> Row:
    """The errors that count: of weighted draws where the verdict is "usable", else of plain ones.

    Under "not to be trusted" no draws are recommended, and plain ones are what a user would see.
    """
    draws: Row = row["weighted" if row["verdict"] == "usable" else "plain"]
    return draws


def class_of(row: Row) -> Class:
    """``right``, ``said`` or ``SILENT``; ``crashed``; ``unknown`` where there is no answer.

    Right: no mean is off by more than 0.2 sd, no sd by more than 20 %, log Z by no more than 0.1
    nats, as far as each is known. Said: not right, under the verdict "not to be trusted". Silent:
    not right, under any other verdict.
    """
    if row["status"] != "ok":
        return "crashed"
    errors = counted(row)
    limits = [
        (errors["mean_error"], MEAN_ERROR),
        (errors["sd_error"], SD_ERROR),
        (row["log_z_error"], LOG_Z_ERROR + row["log_z_se"]),
    ]
    known = [(error, limit) for error, limit in limits if error is not None]
    if not known:
        return "unknown"
    # No NaN is within a limit.
    if all(abs(error) <= limit for error, limit in known):
        return "right"
    return "said" if row["verdict"] == "not to be trusted" else "SILENT"
