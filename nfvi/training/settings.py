"""What the settings of a fit hold, as files keep them: name -> type, see nfvi.utils.entry."""

from __future__ import annotations

from typing import Any, Literal

from nfvi.utils import Amount, Count, Floating, Positive, Seed, check_entries

__all__ = ["check_settings"]

GUIDE = {"formula": str, "base": str, "dtype": Floating, "dim": Positive, "seed": Seed}
TARGET = GUIDE | {
    "target": str,
    "named": bool,
    "steps": Positive,
    "n_mc": Positive,
    "lengths": tuple[Count, ...],
    "gradient": Literal["path", "total"],
    "lr": Amount | None,
    "optimizer": str,
}
# Absent in files of earlier versions.
LATER_TARGET = {
    "init": str,
    "placement": Literal["diagonal", "full"] | None,
    "draws": Literal["iid", "qmc"],
    "combine": Literal["best", "mixture"],
    "open_ended": bool,
    "growing": bool,
    "prune": bool,
    "adaptive": bool,
}
DATA = GUIDE | {
    "context_dim": Count,
    "columns": tuple[str, ...] | None,
    "draws": Floating,
    "rows": Positive,
    "held_out": Count,
    "validation": float | None,
    "fingerprint": str,
    "epochs": Positive,
    "batch_size": Positive,
    "steps": Positive,
    "every": Positive,
    "patience": Positive,
    "standardize": bool,
    "lr": Amount | None,
    "optimizer": str,
}


def check_settings(values: Any, kind: Literal["target", "data"], place: str = "settings") -> None:
    """Check the settings of a fit to a target or to data.

    Args:
        values: name -> value; those of other names are left alone.
        kind: of the fit.
        place: what an error calls them.

    Raises:
        ValueError: one is missing or wrong; the message names it.
    """
    if kind == "target":
        check_entries(values, TARGET, LATER_TARGET, place)
    else:
        check_entries(values, DATA, place=place)
