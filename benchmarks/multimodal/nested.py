"""Nested sampling of the same targets by dynesty, in a box around all of their mass."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.multimodal.problem import Problem
from benchmarks.posteriors.store import Row

__all__ = ["BOX", "LIVE_POINTS", "NESTED", "nested_row"]

BOX = 6.0
"""Sds to each side of the mean. Nested sampling is told of this box, and no fit is."""
LIVE_POINTS = 500
"""dynesty's default, with which a run ends when 0.5 of log Z may be left in its points."""
LEFT = 0.01
"""Of log Z in the live points at the end of a run with more of them. By default that grows with
their number, and rules the error."""
NESTED = (
    *("sep30_d2", "grid25", "ring_d2_s.1", "tworings_d2", "cross", "label3"),
    *("spike_d5_sd0.1", "modes5_rand_d5", "minor_d10", "gmm40"),
)


def nested_row(problem: Problem, seed: int, live_points: int = LIVE_POINTS) -> Row:
    """log Z by nested sampling with dynesty's default settings, under a uniform prior on the box.

    Args:
        problem: with moments that are known in all coordinates.
        seed: of the sampler.
        live_points: of the sampler; the error falls with the root of their number, and the values
            grow with the number. With more than the default it ends when 0.01 of log Z is left.

    Raises:
        ValueError: the moments are not known.
    """
    from dynesty import NestedSampler  # an extra that only this needs

    if problem.moments is None or problem.log_z is None:
        raise ValueError(f"{problem.name}: nested sampling needs a box, and a log Z to compare")
    low = (problem.moments.mean - BOX * problem.moments.sd).numpy()
    width = (2 * BOX * problem.moments.sd).numpy()

    @torch.no_grad()
    def log_likelihood(z: np.ndarray) -> float:
        return float(problem.log_prob(torch.from_numpy(z).unsqueeze(0)))

    wall, cpu = time.perf_counter(), time.process_time()
    sampler = NestedSampler(
        log_likelihood,
        lambda u: low + width * u,
        problem.dim,
        nlive=live_points,
        rstate=np.random.default_rng(seed),
    )
    left = None if live_points == LIVE_POINTS else LEFT
    sampler.run_nested(dlogz=left, print_progress=False)
    found = sampler.results
    log_evidence = float(found.logz[-1] + np.log(width).sum())
    return {
        "dim": problem.dim,
        "live_points": live_points,
        "log_evidence": log_evidence,
        "log_evidence_se": float(found.logzerr[-1]),
        "log_z": problem.log_z,
        "log_z_error": log_evidence - problem.log_z,
        "evaluations": int(np.sum(found.ncall)),
        "wall_time": time.perf_counter() - wall,
        "cpu_time": time.process_time() - cpu,
    }
