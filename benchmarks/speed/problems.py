"""The targets of benchmarks.speed, with what is known of them, and the gap of draws to log Z."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.eight_schools import EFFECTS, LOG_EVIDENCE, STANDARD_ERRORS
from models.potentials import pot1, pot4
from nfvi import LogDensity

__all__ = ["DRAWS", "PROBLEMS", "Problem", "gap_of"]

DRAWS = 50_000
"""From which log Z − ELBO is taken; nobody's clock runs then."""
HALF_LOG_TAU = 0.5 * math.log(math.tau)


def schools_log_prob(z: Tensor) -> Tensor:
    """Eight schools, non-centred, at z = (μ, log τ, η) (n, 10), with the Jacobian of log τ: (n)."""
    mu, log_tau, eta = z[:, :1], z[:, 1:2], z[:, 2:]
    tau = log_tau.exp()
    scale = STANDARD_ERRORS.to(z)
    error = (EFFECTS.to(z) - mu - tau * eta) / scale
    squares = (mu / 5) ** 2 + (eta**2 + error**2).sum(1, keepdim=True)
    cauchy = math.log(2 / (5 * math.pi)) - torch.log1p((tau / 5) ** 2) + log_tau
    normals = -17 * HALF_LOG_TAU - math.log(5) - float(STANDARD_ERRORS.log().sum())
    return (cauchy - 0.5 * squares)[:, 0] + normals


@dataclass(frozen=True)
class Problem:
    """A target that is fitted until log Z − ELBO is below a limit.

    Attributes:
        name: for tables.
        dim: d.
        log_prob: log p at z (n, d), unnormalised: (n).
        log_z: log ∫ p.
        limits: nats, the widest first.
    """

    name: str
    dim: int
    log_prob: Callable[[Tensor], Tensor]
    log_z: float
    limits: tuple[float, ...]

    def target(self) -> LogDensity:
        """What is fitted: the log-density alone."""
        return LogDensity(self.log_prob, self.dim, name=self.name, batched=True)


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("pot1", 2, pot1.log_prob, pot1.log_normalizer or 0.0, (0.05, 0.01)),
        Problem("pot4", 2, pot4.log_prob, pot4.log_normalizer or 0.0, (1.0, 0.1)),
        Problem("eight schools", 10, schools_log_prob, LOG_EVIDENCE, (0.02,)),
    )
}


def gap_of(problem: Problem, x: Tensor, log_q: Tensor) -> float:
    """log Z − ELBO from draws x (n, d) of a guide with log q (n), both on the CPU; nats."""
    with torch.no_grad():
        log_p = problem.log_prob(x.double())
    return problem.log_z - float((log_p - log_q.double()).mean())
