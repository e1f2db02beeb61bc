"""L-BFGS on the log-density: its end is a mode, its path is for Pathfinder.

Pathfinder's paper keeps the inverse Hessian in factors, for high dimensions; here it is written
out (d, d), which costs little up to the 300 dimensions where ``"auto"`` leaves it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfvi.starts.gaussian_fit import Enough, gaussian_elbos, never
from nfvi.targets import Target, log_prob_and_score

__all__ = ["Ascent", "ascend", "pathfinder"]

# Measured on `gaussian_20d`, `funnel`, `eight_schools`, two regressions of the zoo and three of
# posteriordb. 50 stop 135 nats short of the mode of `diamonds`; the longest path that ends by
# itself has 83.
ITERATIONS = 100
# With 10 pairs `gaussian_20d`, `diamonds` and `mesquite` do not settle within 100 iterations, and
# Pathfinder's Gaussian on the first is 12 nats worse; 100 pairs are no better than 50.
MEMORY = 50
# By which the points of a path are compared. 10 are worse by 0.4 nats on a regression, 100 better
# by less than 0.1, but for eight schools (2.4), which has no mode to end at.
DRAWS = 25
# In units of |log p|'s own rounding, or else noise is climbed; 100 change nothing there.
ROUNDING = 10.0
# In nats. 1e-6 saves 6 and 8 iterations on `gaussian_20d` and `logistic_regression`, and costs
# Pathfinder's Gaussian 1.4 and 2.2 nats there.
LEAST_GAIN = 1e-10
# Of yᵀy: a pair with less curvature is rounding, or a ridge, and would blow up the inverse Hessian.
CURVED = 1e-12


@dataclass(frozen=True)
class Ascent:
    """The path of L-BFGS uphill from one point.

    Attributes:
        points: (K, d), float64, the start first.
        gradients: of log p at each (K, d).
        iterations: batched evaluations of the target, one after the other.
        gradient_evaluations: points at which its gradient was taken.
    """

    points: Tensor
    gradients: Tensor
    iterations: int
    gradient_evaluations: int


def ascend(target: Target, start: Tensor, dtype: torch.dtype, enough: Enough = never) -> Ascent:
    """Climb log p from a point (d) by L-BFGS; each iteration tries 16 lengths in one batch.

    It ends where an iteration gains less than 1e-10 nats, or what is lost in rounding, after 100
    of them, or when ``enough`` says so.
    """
    lengths = 2.0 ** torch.arange(2, -14, -1, dtype=torch.float64, device=start.device)
    point = start.detach().double()
    log_p, score = log_prob_and_score(target, point.to(dtype).unsqueeze(0))
    points, gradients, height = [point], [score[0].double()], float(log_p)
    pairs: list[tuple[Tensor, Tensor]] = []
    iterations = 1
    while iterations <= ITERATIONS and bool(gradients[-1].isfinite().all()):
        if enough(1 + (iterations - 1) * len(lengths)):
            break
        iterations += 1
        direction = _direction(gradients[-1], pairs)
        tried = points[-1] + lengths.unsqueeze(1) * direction
        log_p, score = log_prob_and_score(target, tried.to(dtype))
        usable = log_p.isfinite() & score.isfinite().all(1)
        best = int(torch.where(usable, log_p, -torch.inf).argmax())
        gain = float(log_p[best]) - height
        least = max(ROUNDING * torch.finfo(dtype).eps * abs(height), LEAST_GAIN)
        if not (bool(usable[best]) and gain > least):
            if not pairs:
                break
            pairs = []  # what it knows of the curvature has misled it: once more, straight uphill
            continue
        points.append(tried[best])
        gradients.append(score[best].double())
        height += gain
        s, y = points[-1] - points[-2], gradients[-2] - gradients[-1]
        if float(s @ y) > CURVED * float(y @ y):
            pairs = [*pairs[1 - MEMORY :], (s, y)]
    good = torch.stack(gradients).isfinite().all(1)
    evaluated = 1 + (iterations - 1) * len(lengths)
    return Ascent(torch.stack(points)[good], torch.stack(gradients)[good], iterations, evaluated)


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian that the pairs imply, times the gradient.

    Reference:
        Nocedal and Wright, Numerical optimization, 2006, algorithm 7.4.
    """
    if not pairs:
        step: Tensor = gradient / gradient.norm().clamp_min(1.0)
        return step
    weights: list[Tensor] = []
    direction = gradient
    for s, y in reversed(pairs):
        weights.append((s @ direction) / (s @ y))
        direction = direction - weights[-1] * y
    s, y = pairs[-1]
    direction = direction * ((s @ y) / (y @ y))
    for (s, y), weight in zip(pairs, reversed(weights), strict=True):
        direction = direction + s * (weight - (y @ direction) / (s @ y))
    return direction


def pathfinder(
    target: Target, path: Ascent, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """The Gaussian of highest ELBO along a path: μ (d) and L (d, d); ``None`` where none is finite.

    At each point x with gradient g, the curvature that L-BFGS has seen gives a covariance H and
    the Gaussian N(x + H g, H); all are compared by ELBO on the same 25 draws.

    Reference:
        Zhang, Carpenter, Gelman and Vehtari, Pathfinder: parallel quasi-Newton variational
        inference, 2022.
    """
    locs, factors = [], []
    for k, covariance in enumerate(_covariances(path)):
        factor, info = torch.linalg.cholesky_ex(covariance)
        if not int(info) and bool(factor.isfinite().all()):
            locs.append(path.points[k] + covariance @ path.gradients[k])
            factors.append(factor)
    if not locs:
        return None
    shape = DRAWS, len(locs[0])
    noise = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
    loc, tril = torch.stack(locs), torch.stack(factors)
    elbo = gaussian_elbos(target, loc, tril, noise.to(loc.device))
    best = int(elbo.argmax())
    return None if float(elbo[best]) == -math.inf else (loc[best], tril[best])


def _covariances(path: Ascent) -> list[Tensor]:
    """The inverse Hessian that L-BFGS knows at each point of a path, each (d, d)."""
    diagonal = torch.ones_like(path.points[0])
    pairs: list[tuple[Tensor, Tensor]] = []
    found = [diagonal.diag_embed()]
    for k in range(1, len(path.points)):
        s = path.points[k] - path.points[k - 1]
        y = path.gradients[k - 1] - path.gradients[k]
        if float(s @ y) > CURVED * float(y @ y):
            diagonal = _updated(diagonal, s, y)
            pairs = [*pairs[1 - MEMORY :], (s, y)]
        h = diagonal.diag_embed()
        for s, y in pairs:
            moved = torch.outer(h @ y, s) / (s @ y)
            h = h - moved - moved.T + (1 + (y @ h @ y) / (s @ y)) * torch.outer(s, s) / (s @ y)
        found.append(h)
    return found


def _updated(diagonal: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """The diagonal part of the inverse Hessian after a pair (Gilbert and Lemaréchal, 1989)."""
    a = y @ (diagonal * y)
    b = s @ y
    c = s @ (s / diagonal)
    updated = a / (b * diagonal) + y.square() / b - a * s.square() / (b * c * diagonal.square())
    new = updated.reciprocal()
    return torch.where((new > 0) & new.isfinite(), new, diagonal)
