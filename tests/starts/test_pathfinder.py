"""L-BFGS, Laplace's approximation and Pathfinder: exact on Gaussians, and honest elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import eight_schools, funnel, gaussian_20d, make_gaussian
from nfvi.starts.gaussian_fit import gaussian_elbos
from nfvi.starts.pathfinder import Ascent, ascend, pathfinder
from nfvi.targets import LogDensity, as_target
from nfvi.targets.base import Target

DTYPE = torch.float64


def climb(target: Target, dtype: torch.dtype = DTYPE) -> Ascent:
    return ascend(target, torch.zeros(target.dim, dtype=DTYPE), dtype)


def elbo(target: Target, loc: Tensor, tril: Tensor) -> float:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(4_000, target.dim, generator=generator, dtype=DTYPE)
    return float(gaussian_elbos(target, loc[None], tril[None], noise)[0])


class TestAscent:
    def test_the_mode_of_an_ill_conditioned_quadratic(self):
        """Condition 10⁴: within 10⁻⁴ of an sd in every direction, in fewer than 100 iterations."""
        path = climb(gaussian_20d)
        whitened = torch.linalg.cholesky(torch.linalg.inv(gaussian_20d.covariance)).T
        off = whitened @ (path.points[-1] - gaussian_20d.mean)
        assert off.norm() < 1e-4
        assert path.iterations < 100

    @pytest.mark.parametrize("target", [gaussian_20d, funnel, as_target(eight_schools)], ids=str)
    def test_the_path_climbs(self, target):
        path = climb(target)
        height = target.log_prob(path.points)
        assert (height.diff() > 0).all() and len(height) > 2
        assert torch.equal(path.points[0], torch.zeros(target.dim, dtype=DTYPE))

    def test_the_gradients_are_those_at_its_points(self):
        path = climb(funnel)
        points = path.points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(funnel.log_prob(points).sum(), points)
        torch.testing.assert_close(path.gradients, gradient)

    def test_what_it_counts_is_what_the_target_sees(self):
        seen: list[int] = []

        def log_prob(z: Tensor) -> Tensor:
            seen.append(len(z))
            return -0.5 * (z - 3).square().sum(-1)

        target = LogDensity(log_prob, 2, batched=True)
        target.check(DTYPE)
        seen.clear()
        path = climb(target)
        assert (path.iterations, path.gradient_evaluations) == (len(seen), sum(seen))

    def test_it_stays_where_the_density_is(self):
        """log p = log z − z has its mode at 1 and no density below 0; the start, 0, moves by +2."""

        def log_prob(z: Tensor) -> Tensor:
            x = z[:, 0] + 0.01
            return torch.where(x > 0, x.log() - x, -torch.inf)

        path = climb(LogDensity(log_prob, 1, batched=True, name="gamma"))
        assert abs(float(path.points[-1, 0]) - 0.99) < 1e-4
        assert (path.points > -0.01).all()

    def test_a_mode_in_single_precision(self):
        target = make_gaussian(5, condition=100.0, seed=0)
        path = climb(target, torch.float32)
        whitened = torch.linalg.cholesky(torch.linalg.inv(target.covariance)).T
        assert (whitened @ (path.points[-1] - target.mean)).norm() < 0.01


class TestPathfinder:
    @pytest.mark.parametrize(("dim", "condition"), [(2, 4.0), (10, 100.0), (20, 1e4)])
    def test_it_comes_near_laplace_on_gaussians(self, dim, condition):
        """L-BFGS has seen most of the curvature: within 0.1 nats of log Z."""
        target = make_gaussian(dim, condition=condition, seed=0)
        loc, tril = pathfinder(target, climb(target), torch.Generator().manual_seed(0), DTYPE)
        gap = target.log_normalizer - elbo(target, loc, tril)
        assert -1e-9 < gap < 0.1

    def test_the_best_place_on_the_way_beats_the_end_of_it(self):
        """The scale of the schools has its mode at 0, where the density has no mass."""
        target = as_target(eight_schools)
        path = climb(target)
        loc, tril = pathfinder(target, path, torch.Generator().manual_seed(0), DTYPE)
        end = Ascent(path.points[-2:], path.gradients[-2:], 2, 2)
        last = pathfinder(target, end, torch.Generator().manual_seed(0), DTYPE)
        assert elbo(target, loc, tril) > elbo(target, *last) + 10

    def test_there_is_none_without_a_finite_elbo(self):
        target = LogDensity(
            lambda z: torch.where(z[:, 0] >= 0, -z[:, 0], -torch.inf), 1, batched=True, name="half"
        )
        path = Ascent(torch.zeros(1, 1, dtype=DTYPE), torch.zeros(1, 1, dtype=DTYPE), 1, 1)
        assert pathfinder(target, path, torch.Generator().manual_seed(0), DTYPE) is None
