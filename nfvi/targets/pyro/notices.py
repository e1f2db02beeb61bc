"""What a user is told of a Pyro model that is not fitted quite as it stands."""

from __future__ import annotations

import warnings

from nfvi.targets.pyro.all_rows_reader import LEAVE_OUT
from nfvi.targets.pyro.program import Program

__all__ = ["warn_of_constants"]


def warn_of_constants(name: str, program: Program, fresh: str | None) -> None:
    """Warn of parameters that are not learned, and of plates that keep one subsample.

    Of plates whose rows all come, it warns where a run a part is needed, and of deterministic sites
    that are of no row.

    Args:
        name: what messages call the model.
        program: the model.
        fresh: a plate that draws anew in each step.
    """
    if program.params:
        shown = ", ".join(list(program.params)[:5]) + (", ..." if len(program.params) > 5 else "")
        warnings.warn(
            f"{name!r} has parameters (pyro.param: {shown}); they keep their present values and "
            "are not learned: give them a prior with pyro.sample if they should be",
            stacklevel=3,
        )
    all_rows = program.all_rows
    if program.not_mapped and all_rows is not None:
        warnings.warn(
            f"{name!r} is run {len(all_rows.weights)} times for each point, a few rows at a time,"
            f" which is slow, because all rows do not go through it at once ({program.not_mapped});"
            f" avoid .item(), NumPy and branches on values and indices in it, or {LEAVE_OUT}",
            stacklevel=3,
        )
    if program.mixed:
        shown = ", ".join(map(repr, sorted(program.mixed)))
        warnings.warn(
            f"{name!r}: the deterministic site {shown} is left out, as its value depends on which"
            f" rows a run of the model takes; compute it from draws of the others, or {LEAVE_OUT}",
            stacklevel=3,
        )
    for plate, (taken, size) in program.unscaled.items():
        warnings.warn(
            f"{name!r}: plate {plate!r} is given {taken} of {size} rows and holds latent sites; its"
            f" density is not scaled up, which would raise their prior to the power {size}/{taken}."
            " The posterior is that given these rows alone: leave subsample= out for that of all"
            " the data",
            stacklevel=3,
        )
    for plate in program.random_plates:
        if plate in program.unscaled or plate == fresh:
            continue
        warnings.warn(
            f"{name!r}: plate {plate!r} draws its own subsample; the target keeps one, of "
            f"{len(program.subsamples[plate])} indices, with its log-likelihood scaled up, so that "
            "log_prob is the same at each call. The posterior is that of this subsample: leave "
            "subsample_size= out for that of all the data",
            stacklevel=3,
        )
