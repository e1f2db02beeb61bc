"""Whether a fit to a target can fit into memory, judged before the target is evaluated."""

from __future__ import annotations

from nfvi.formula import LARGE_DIM, Formula
from nfvi.inference.guide_spec import GuideSpec
from nfvi.targets import Target
from nfvi.utils import check_memory

__all__ = ["check_size"]

COPIES, DRAWS = 4, 32
"""The least that a fit holds: its parameters, their gradient and two moments of Adam, and
the 32 draws that its diagnostics keep at least, twice while they are put together."""


def check_size(spec: GuideSpec, target: Target) -> None:
    """Check that one restart of a fit has room on the device.

    Raises:
        ValueError: the numbers are more than its memory holds.
    """
    dim = target.dim
    if dim < LARGE_DIM:
        return
    formula = spec.formula
    size = formula.estimated_size(dim) if isinstance(formula, Formula) else 2 * dim
    needed = (COPIES * size + 2 * DRAWS * dim) * spec.target_dtype(target).itemsize
    what = f"a fit of {str(formula)!r}, about {size:,} numbers, in {dim:,} dimensions"
    check_memory(what, needed, spec.device, "check dim=, or take a formula with fewer numbers")
