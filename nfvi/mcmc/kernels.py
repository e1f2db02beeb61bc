"""Pyro's HMC with a bound on its steps, and the options of Pyro's kernels from ours."""

from __future__ import annotations

from typing import Any, Literal

from pyro.infer.mcmc import HMC

from nfvi.utils import check_positive

__all__ = ["MAX_LEAPFROG_STEPS", "BoundedHMC", "Mass", "kernel_options"]

# As many as a tree of NUTS at its default depth of 10; a chain whose step is tiny would not return.
MAX_LEAPFROG_STEPS = 1024

Mass = Literal["diagonal", "dense", "identity"]


class BoundedHMC(HMC):
    """Pyro's HMC with a number of leapfrog steps that is fixed, or bounded.

    Pyro lets the number grow as the step shrinks, without end on a difficult density, and counts
    ``num_steps`` in steps of the size before adaptation.
    """

    def __init__(self, fixed_steps: int | None, **options: Any) -> None:
        self._fixed_steps = fixed_steps
        super().__init__(**options)

    @property
    def num_steps(self) -> int:
        """Leapfrog steps a draw."""
        if self._fixed_steps is not None:
            return self._fixed_steps
        return int(min(MAX_LEAPFROG_STEPS, max(1.0, self.trajectory_length / self.step_size)))


def kernel_options(step_size: float | None, target_accept: float, mass: str) -> dict[str, Any]:
    """The options that Pyro's HMC and NUTS have in common, from ours, which are checked here.

    Raises:
        ValueError: an argument is out of range.
    """
    if step_size is not None:
        check_positive("step_size", step_size)
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept must lie between 0 and 1, got {target_accept!r}")
    if mass not in ("diagonal", "dense", "identity"):
        raise ValueError(f"mass must be 'diagonal', 'dense' or 'identity', got {mass!r}")
    return {
        "step_size": 1.0 if step_size is None else step_size,
        "adapt_step_size": step_size is None,
        "adapt_mass_matrix": mass != "identity",
        "full_mass": mass == "dense",
        "target_accept_prob": target_accept,
    }
