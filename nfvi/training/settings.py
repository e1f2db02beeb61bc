"""What the settings of a fit hold, as files keep them: name -> type, see nfvi.utils.entry."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any, Literal, TypeAlias

from nfvi.utils import Count, Floating, Positive, Seed, Within, check_entries

__all__ = ["check_settings"]

Rate: TypeAlias = Annotated[float, Within(sys.float_info.min)]
GUIDE = {"formula": str, "base": str, "dtype": Floating, "dim": Positive, "seed": Seed}
TARGET = GUIDE | {
    "target": str,
    "named": bool,
    "steps": Positive,
    "n_mc": Annotated[int, Within(2)],
    "lengths": tuple[Count, ...],
    "gradient": Literal["path", "total"],
    "lr": Rate | None,
    "optimizer": str,
}
# Absent in files of earlier versions.
LATER: dict[str, Any] = {"compile": Literal["trace", "inductor"] | bool, "evaluation": str}
LATER_TARGET = {
    "init": str,
    "placement": Literal["diagonal", "full"] | None,
    "draws": Literal["iid", "qmc"],
    "held": Count,
    "combine": Literal["best", "mixture"],
    "open_ended": bool,
    "growing": bool,
    "prune": bool,
    "adaptive": bool,
    "rows": Positive,
    "batch_size": Positive,
    "scores": str,
    **LATER,
}
DATA = GUIDE | {
    "context_dim": Count,
    "columns": tuple[str, ...] | None,
    "draws": Floating,
    "rows": Positive,
    "held_out": Count,
    "validation": Annotated[float, Within(0, math.nextafter(1, 0))] | None,
    "fingerprint": str,
    "epochs": Positive,
    "batch_size": Positive,
    "steps": Positive,
    "every": Positive,
    "patience": Positive,
    "standardize": bool,
    "lr": Rate | None,
    "optimizer": str,
}
LATER_DATA = {
    "robust": bool,
    "notes": tuple[str, ...],
    "dtypes": tuple[str, ...] | None,
    "table": dict | None,
    **LATER,
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
        check_entries(values, DATA, LATER_DATA, place)
