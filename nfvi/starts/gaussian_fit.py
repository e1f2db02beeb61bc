"""Gaussians fitted to a target by natural gradients: a start in about a hundred evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nfvi.starts.gaussian_points import Points, log_q, place
from nfvi.targets import Target, costs_by_points, log_prob_and_score, log_prob_anywhere

__all__ = ["Arrived", "Enough", "GaussianFit", "fit_gaussians", "gaussian_elbos", "never"]

Enough: TypeAlias = Callable[[int], bool]
"""Whether to end early, after so many points at which the gradient was taken."""
Arrived: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Which of some Gaussians, of μ (S, d) and L (S, d, d), are where nothing is to be found (S)."""

# Measured by init="gaussian" on `gaussian_20d`, `funnel` and centred `eight_schools`, two seeds
# each: 155, 217 and 247 batches. Half or twice of one of these moves the ELBO by 0.04 nats at most
# on the funnel, 0.02 on eight schools and nothing on the first, hardly more than another seed does.
STEPS = 300  # more than any fit there took
# Twice as many take a fifth fewer batches, each of twice the size.
DRAWS = (128, 256)
# Above so many dimensions a diagonal is fitted coordinate by coordinate, from so many draws: the
# joint regression on 4 d draws takes 8 s a step at d = 1 600.
JOINT_LIMIT = 300
DRAWS_ALONE = 512
# 5 save 12 to 21 batches, 20 cost 18 to 30.
FAST_PATIENCE = 10
# 50 save a third of the batches, and end on noise that more steps average out.
SLOW_STEPS = 100
# 2.5 saves up to 41 batches and loses the most but for REACH; 10 costs 24 for nothing.
HALVING = 5.0
# In nats. 2e-3 halves the batches of funnel and eight schools; 1e-4 costs 25 for nothing.
SETTLED = 5e-4
# Of the draws, those that must be finite; where all are, no matter. Less, and a step may leave the
# support.
FEWEST = 0.7
# e^1.4 = 4 in a variance, thus 2 in an sd. Twice of it lost the most on eight schools, 0.02 nats.
REACH = 1.4
# Steps between two questions of whether a start has arrived.
LOOK = 5


def never(_: int) -> bool:
    """No reason to end early."""
    return False


@dataclass(frozen=True)
class GaussianFit:
    """S Gaussians N(μ, L Lᵀ), the results of S starts.

    Attributes:
        loc: μ (S, d), float64.
        tril: L (S, d, d), lower triangular, or its diagonal (S, d); float64.
        iterations: batched evaluations of the target, one after the other.
        gradient_evaluations: points at which its gradient was taken.
    """

    loc: Tensor
    tril: Tensor
    iterations: int
    gradient_evaluations: int


def fit_gaussians(
    target: Target,
    loc: Tensor,
    tril: Tensor,
    generator: torch.Generator,
    *,
    diagonal: bool = False,
    beta: float = 1.0,
    steps: int = STEPS,
    dtype: torch.dtype | None = None,
    enough: Enough = never,
    arrived: Arrived | None = None,
) -> GaussianFit:
    """Maximise the ELBO of S Gaussians by natural-gradient steps with a bound on their length.

    With ε ~ N(0, I), z = μ + L ε and the score s = ∇ log p(z), the residual r = Lᵀ s + ε is what
    is left of ∇ log p − ∇ log q in the coordinates ε. Its regression on (1, ε), r ≈ b + C ε,
    estimates E[r] and E[∂r/∂ε], so that

        Λ ← I − ρ C,   μ ← μ + ρ L Λ⁻¹ b,   L Lᵀ ← L Λ⁻¹ Lᵀ

    is a natural-gradient step of length ρ; without noise, and exact at ρ = 1, where p is a
    Gaussian, whatever its condition number. Both vanish at the maximum of the ELBO alone.

    Steps are long at first (ρ = 1, no sd grows or shrinks by more than a factor of 2). Once the
    ELBO has not risen for 10 of them the noise decides, and ρ falls as 1 / (1 + k / 5).

    Where the target's cost goes by the points, starts that are done are no longer evaluated.

    Args:
        target: log p.
        loc: where to start (S, d).
        tril: L to start with (S, d, d), or its diagonal (S, d) for ``diagonal``.
        generator: of the draws; all starts see the same.
        diagonal: whether L stays diagonal.
        beta: β of β log p, to fit a flattened target.
        steps: at most so many.
        dtype: in which the target is evaluated; default that of ``loc``.
        enough: asked after every step.
        arrived: asked of those whose ELBO no longer rises: which are done as they stand.

    Reference:
        Lin, Khan and Schmidt, Handling the positive-definite constraint in the Bayesian learning
        rule, 2020, for natural gradients of Gaussians; Salimans and Knowles, Fixed-form
        variational posterior approximation through stochastic linear regression, 2013.
    """
    run = _Run(target, loc, tril, generator, diagonal, beta, dtype or loc.dtype)
    for turn in range(steps):
        if arrived is not None and turn % LOOK == 0 and not run.leave(arrived):
            break
        if not run.step() or enough(run.gradient_evaluations):
            break
    return GaussianFit(run.loc, run.tril, run.iterations, run.gradient_evaluations)


@torch.no_grad()
def gaussian_elbos(target: Target, loc: Tensor, tril: Tensor, noise: Tensor) -> Tensor:
    """ELBO of each Gaussian on the same noise.

    Args:
        target: log p.
        loc: μ (S, d).
        tril: L (S, d, d) or (S, d).
        noise: standard normal draws (n, d), in the dtype in which the target is evaluated.

    Returns:
        (S), float64; −∞ where a draw has no finite density.
    """
    z = place(loc, tril, noise.double())
    log_p = log_prob_anywhere(target, z.flatten(0, 1).to(noise.dtype))
    log_p = log_p.double().unflatten(0, z.shape[:2])
    log_ratio = log_p - log_q(tril, noise.double())
    return torch.where(log_ratio.isfinite().all(1), log_ratio.mean(1), -torch.inf)


class _Run:
    """The state of S fits side by side; a start that is done waits for the others."""

    def __init__(
        self,
        target: Target,
        loc: Tensor,
        tril: Tensor,
        generator: torch.Generator,
        diagonal: bool,
        beta: float,
        dtype: torch.dtype,
    ) -> None:
        self.target, self.generator, self.diagonal = target, generator, diagonal
        self.alone = diagonal and loc.shape[1] > JOINT_LIMIT
        self.beta, self.dtype = beta, dtype
        self.narrows = costs_by_points(target)
        self.loc, self.tril = loc.detach().double(), tril.detach().double()
        self.iterations = self.gradient_evaluations = 0
        starts = self.loc.new_zeros(len(loc))
        self.slow = starts.clone()
        self.radius = torch.ones_like(starts)
        self.best = torch.full_like(starts, -torch.inf)
        self.since = starts.clone()
        self.done = starts.bool()
        self.points = self._shrink_into_support()

    def step(self) -> bool:
        """One step of every start that is not done; whether any is left."""
        rho = 1 / (1 + self.slow / HALVING)
        b, curvature, noise = self._regress_alone() if self.alone else self._regress()
        square = curvature.square().sum(tuple(range(1, curvature.dim())))
        predicted = 0.5 * b.square().sum(-1) + 0.25 * square
        loc, tril = self._move(b, curvature, rho)
        previous = self.points
        self.points = self._evaluate(loc, tril)
        rejected = self.points.usable.double().mean(1) < FEWEST
        rejected |= ~loc.isfinite().all(-1) | ~tril.flatten(1).isfinite().all(-1)
        settled = (self.slow > 0) & (rho * noise < SETTLED) & (predicted < SETTLED + 3 * noise)
        self.done |= settled | (self.slow > SLOW_STEPS) | (self.radius < 1e-3)
        stays = rejected | self.done
        self.radius = torch.where(rejected, self.radius / 2, self.radius)
        self.loc = torch.where(stays[:, None], self.loc, loc)
        self.tril = torch.where(stays.view(-1, *[1] * (tril.dim() - 1)), self.tril, tril)
        self._pace(rejected)
        self.points = self.points.where(~stays, previous)
        return not bool(self.done.all())

    def leave(self, arrived: Arrived) -> bool:
        """End those that have arrived, of the starts that no longer rise; whether any is left."""
        index = ((self.slow > 0) & ~self.done).nonzero()[:, 0]
        if len(index):
            self.done[index] = arrived(self.loc[index], self.tril[index])
        return not bool(self.done.all())

    def _pace(self, rejected: Tensor) -> None:
        """Count the steps without a rise of the ELBO, and those of the slow phase."""
        # Half the mean, half the median: the mean alone is lost in the tails of a poor Gaussian.
        score = self.points.score()
        risen = (score > self.best + 0.01) & ~rejected
        leap = (score > self.best + 1) & ~rejected & (self.slow > 0)
        self.best = torch.where(risen, score, self.best)
        self.since = torch.where(risen, 0.0, self.since + 1)
        self.slow = torch.where(self.slow > 0, self.slow + 1, self.slow)
        self.slow = torch.where((self.slow == 0) & (self.since >= FAST_PATIENCE), 1.0, self.slow)
        self.slow = torch.where(leap, (self.slow - 3).clamp_min(1.0), self.slow)

    def _regress_alone(self) -> tuple[Tensor, Tensor, Tensor]:
        """b (S, d), the diagonal of C (S, d), and the noise (S): each coordinate by itself.

        The joint regression takes more draws than there are dimensions, and their cube in
        arithmetic; this one takes the other coordinates' part of a residual for noise.
        """
        p = self.points
        used = p.usable.double().unsqueeze(-1)
        score = torch.where(p.usable.unsqueeze(-1), p.score_function, 0.0)
        residual = (score * self.tril.unsqueeze(1) + p.noise) * used
        count = used.sum(1).clamp_min(1)
        noise = (p.noise - (p.noise * used).sum(1, keepdim=True) / count.unsqueeze(1)) * used
        b = residual.sum(1) / count
        slope = (noise * residual).sum(1) / noise.square().sum(1).clamp_min(1e-12)
        error = (residual - b.unsqueeze(1) - slope.unsqueeze(1) * noise) * used
        variance = error.square().sum((-2, -1)) / (count - 2).clamp_min(1)[:, 0] / count[:, 0]
        return b, slope, variance * 0.75

    def _regress(self) -> tuple[Tensor, Tensor, Tensor]:
        """b (S, d), C (S, d, d) and the part of the predicted gain that is noise (S)."""
        p, d = self.points, self.loc.shape[1]
        used = p.usable.double().unsqueeze(-1)
        score = torch.where(p.usable.unsqueeze(-1), p.score_function, 0.0)
        residual = (
            score * self.tril.unsqueeze(1) if self.diagonal else score @ self.tril
        ) + p.noise
        design = torch.cat([torch.ones_like(p.noise[..., :1]), p.noise], -1) * used
        gram = design.mT @ design
        ridge = 1e-9 * p.noise.shape[-2]
        gram = gram + ridge * torch.eye(d + 1, dtype=gram.dtype, device=gram.device)
        solution = torch.linalg.solve(gram, design.mT @ residual)
        error = (residual - design @ solution) * used
        b, slope = solution[:, 0], solution[:, 1:]
        count = used.sum((-2, -1))
        variance = error.square().sum((-2, -1)) / (count - d - 1).clamp_min(1) / count.clamp_min(1)
        if self.diagonal:
            slope = slope.diagonal(dim1=-2, dim2=-1).diag_embed()
            return b, slope, variance * 0.75
        return b, 0.5 * (slope + slope.mT), variance * (0.5 + 0.125 * (d + 1))

    def _move(self, b: Tensor, curvature: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        reach = (self.radius * (2 * rho).clamp_max(1.0)).unsqueeze(-1)
        if self.alone:
            return self._move_alone(b, curvature, rho, reach)
        values, vectors = torch.linalg.eigh(curvature.nan_to_num(0.0, 0.0, 0.0))
        precision = (1 - rho.unsqueeze(-1) * values).clamp(
            (-REACH * reach).exp(), (REACH * reach).exp()
        )
        along = rho.unsqueeze(-1) * torch.einsum("sij,si->sj", vectors, b) / precision
        length = along.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(along.dtype).tiny)
        along = along * (2 * reach / length).clamp_max(1.0)
        shift = torch.einsum("sij,sj->si", vectors, along)
        inverse = torch.einsum("sij,sj,skj->sik", vectors, 1 / precision, vectors)
        if self.diagonal:
            scale = inverse.diagonal(dim1=-2, dim2=-1).sqrt()
            return self.loc + self.tril * shift, self.tril * scale
        factor = torch.linalg.cholesky_ex(inverse)[0]
        return self.loc + torch.einsum("sij,sj->si", self.tril, shift), self.tril @ factor

    def _move_alone(
        self, b: Tensor, slope: Tensor, rho: Tensor, reach: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step where C (S, d) is a diagonal."""
        least, most = (-REACH * reach).exp(), (REACH * reach).exp()
        precision = (1 - rho.unsqueeze(-1) * slope.nan_to_num(0.0, 0.0, 0.0)).clamp(least, most)
        shift = rho.unsqueeze(-1) * b / precision
        # Each coordinate has its own bound: that on the length of all would shrink with √d.
        shift = shift.clamp(-2 * reach, 2 * reach)
        return self.loc + self.tril * shift, self.tril * precision.rsqrt()

    def _evaluate(self, loc: Tensor, tril: Tensor) -> Points:
        n = DRAWS[bool((self.slow > 0).all())]
        n = DRAWS_ALONE if self.alone else max(n, 4 * loc.shape[1])
        half = torch.randn(
            n // 2,
            loc.shape[1],
            generator=self.generator,
            dtype=torch.float64,
            device=self.generator.device,
        ).to(loc.device)
        noise = torch.cat([half, -half])
        z = place(loc, tril, noise).to(self.dtype)
        log_p, gradient = self._at(z)
        self.iterations += 1
        log_p, gradient = log_p.double(), gradient.double()
        usable = log_p.isfinite() & gradient.isfinite().all(-1)
        return Points(noise.expand_as(z), gradient, log_p - log_q(tril, noise), usable)

    def _at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p (S, n) and its gradient (S, n, d) at z; NaN for starts that are left out."""
        index = (~self.done).nonzero()[:, 0]
        left_out = self.narrows and 0 < len(index) < len(z)
        some = z[index] if left_out else z
        log_p, gradient = log_prob_and_score(self.target, some.flatten(0, 1), self.beta)
        self.gradient_evaluations += len(log_p)
        found = log_p.unflatten(0, some.shape[:2]), gradient.unflatten(0, some.shape[:2])
        if not left_out:
            return found
        every = torch.full_like(z[..., 0], torch.nan), torch.full_like(z, torch.nan)
        return every[0].index_copy(0, index, found[0]), every[1].index_copy(0, index, found[1])

    def _shrink_into_support(self) -> Points:
        """Halve the spread of starts most draws of which have no finite density."""
        for _ in range(20):
            points = self._evaluate(self.loc, self.tril)
            few = points.usable.double().mean(1) < 0.8
            if not bool(few.any()):
                return points
            factor = torch.where(few, 0.5, 1.0)
            self.tril = self.tril * factor.view(-1, *[1] * (self.tril.dim() - 1))
        self.done |= few
        return points
