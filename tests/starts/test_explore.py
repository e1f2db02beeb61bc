"""Looking for modes: the distance of Gaussians, and what is found from scattered starts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models import make_gaussian, mixture_10d
from models.mixture import GaussianMixture
from nfvi.starts.explore import Modes, explore, grouped, overlap
from nfvi.starts.starts import Start, find_start
from nfvi.targets import LogDensity

DTYPE = torch.float64


def gaussians(loc: list[float], sd: list[float]) -> tuple[Tensor, Tensor]:
    """K Gaussians in one dimension."""
    return torch.tensor(loc, dtype=DTYPE)[:, None], torch.tensor(sd, dtype=DTYPE)[:, None, None]


def found(target, seed: int = 0) -> Modes:
    generator = torch.Generator().manual_seed(seed)
    return explore(target, found_start(target, generator), generator, DTYPE)


def found_start(target, generator: torch.Generator | None = None) -> Start:
    generator = generator or torch.Generator().manual_seed(0)
    start = find_start(target, "auto", generator, DTYPE)
    if start.tril.dim() == 1:
        start = Start(start.loc, start.tril.diag_embed(), "", 0.0, 0, 0)
    return start


def two_modes(apart: float) -> GaussianMixture:
    """Unit normals in three dimensions, as far apart."""
    means = torch.zeros(2, 3)
    means[:, 1] = torch.tensor([-apart / 2, apart / 2])
    return GaussianMixture(torch.ones(2), means, torch.eye(3).repeat(2, 1, 1))


class TestDistance:
    @pytest.mark.parametrize(
        ("means", "sds"), [((0.0, 3.0), (1.0, 1.0)), ((0.0, 0.0), (1.0, 5.0)), ((-1, 4), (0.1, 2))]
    )
    def test_closed_form_in_one_dimension(self, means, sds):
        (a, b), (s, t) = means, sds
        exact = (a - b) ** 2 / (4 * (s**2 + t**2)) + 0.5 * math.log((s**2 + t**2) / (2 * s * t))
        distance = overlap(*gaussians(list(means), list(sds)))
        torch.testing.assert_close(distance.diagonal(), torch.zeros(2, dtype=DTYPE))
        torch.testing.assert_close(distance[0, 1], torch.tensor(exact, dtype=DTYPE))
        assert distance[0, 1] == distance[1, 0]

    def test_it_is_minus_the_log_of_the_common_area(self):
        """−log ∫ √(p q), by a sum over a grid."""
        loc, tril = gaussians([0.3, 1.7], [0.5, 1.1])
        x = torch.linspace(-15, 15, 20_001, dtype=DTYPE)
        p, q = torch.distributions.Normal(loc, tril[:, 0]).log_prob(x)
        area = (0.5 * (p + q)).exp().sum() * (x[1] - x[0])
        torch.testing.assert_close(overlap(loc, tril)[0, 1], -area.log())

    def test_linear_maps_do_not_change_it(self):
        generator = torch.Generator().manual_seed(0)
        loc = torch.randn(3, 4, generator=generator, dtype=DTYPE)
        tril = torch.randn(3, 4, 4, generator=generator, dtype=DTYPE).tril(-1)
        tril = tril + (0.5 + torch.rand(3, 4, generator=generator, dtype=DTYPE)).diag_embed()
        change = torch.randn(4, 4, generator=generator, dtype=DTYPE)
        moved = torch.linalg.cholesky(change @ tril @ (change @ tril).mT)
        torch.testing.assert_close(overlap(loc @ change.T, moved), overlap(loc, tril))

    def test_what_cannot_be_computed_is_far(self):
        loc, tril = gaussians([0.0, math.nan], [1.0, 1.0])
        assert overlap(loc, tril)[0, 1] == torch.inf


class TestFinding:
    @pytest.mark.parametrize("seed", range(3))
    def test_two_modes(self, seed):
        modes = found(two_modes(14.0), seed)
        assert modes.loc.shape == (2, 3)
        assert sorted(modes.loc[:, 1].round().tolist()) == [-7.0, 7.0]
        # Each is the whole of its mode: ELBO = log ½; 500 draws of an exact fit have no noise.
        half = torch.full((2,), -math.log(2), dtype=DTYPE)
        torch.testing.assert_close(modes.elbos, half, atol=0.02, rtol=0)

    @pytest.mark.parametrize("seed", range(3))
    def test_one_mode(self, seed):
        modes = found(make_gaussian(4, condition=30.0, seed=0), seed)
        assert len(modes.loc) == 1
        # Eight starts of at most 80 steps each, in one batch; nothing new, so no second round.
        assert modes.iterations <= 100

    def test_eight_modes_in_ten_dimensions(self):
        """Each of the mixture's means is within one sd of a Gaussian that was found."""
        modes = found(mixture_10d)
        assert len(modes.loc) == 8
        assert torch.cdist(mixture_10d.means, modes.loc).amin(1).max() < 1
        assert (modes.elbos[:-1] >= modes.elbos[1:]).all()

    def test_same_generator_same_modes(self):
        one, other = found(two_modes(14.0)), found(two_modes(14.0))
        assert torch.equal(one.loc, other.loc) and torch.equal(one.elbos, other.elbos)

    def test_another_than_the_start(self):
        loc, tril = gaussians([4.0], [1.0])
        modes = Modes(loc, tril, torch.zeros(1), 0, 0)
        assert modes.away_from(loc[0] - 4, tril[0])
        assert not modes.away_from(loc[0] + 0.5, tril[0])


class TestStartsThatArrive:
    """Of a target that costs by its points, those that come to a known place are left there."""

    def explored(self, apart: float, *, by_points: bool) -> tuple[Modes, int]:
        mixture = two_modes(apart)

        def log_prob(z: Tensor) -> Tensor:
            # Tails that a Gaussian does not fit: its starts go on for all of their steps.
            return mixture.log_prob(z) - 0.05 * z[:, 0].abs() ** 3

        target = LogDensity(log_prob, 3, batched=True)
        target.check(DTYPE)
        start = found_start(target)
        target.differentiable_once = by_points
        generator = torch.Generator().manual_seed(0)
        modes = explore(target, start, generator, DTYPE)
        return modes, modes.gradient_evaluations

    def test_fewer_points_and_the_same_places(self):
        every, all_points = self.explored(14.0, by_points=False)
        some, fewer = self.explored(14.0, by_points=True)
        assert len(every.loc) == len(some.loc) == 2
        assert float(torch.cdist(every.loc, some.loc).amin(1).max()) < 0.3
        assert fewer < 0.75 * all_points

    def test_one_place(self):
        every, all_points = self.explored(0.0, by_points=False)
        some, fewer = self.explored(0.0, by_points=True)
        assert len(every.loc) == len(some.loc) == 1 and fewer < 0.75 * all_points


class TestGroups:
    def test_modes_that_overlap_are_one(self):
        """Bhattacharyya distance of unit normals: Δ² / 8, so 3 nats are Δ = 4.9."""
        for distance, groups in ((4.8, 2), (5.0, 3)):
            loc, tril = gaussians([0.0, distance, 20.0], [1.0, 1.0, 1.0])
            assert len(grouped(loc, tril, torch.ones(3))[0]) == groups

    def test_a_group_has_the_moments_of_its_mixture(self):
        """By a weighted sum over draws that have exactly the moments of each Gaussian."""
        generator = torch.Generator().manual_seed(0)
        loc = 0.5 * torch.randn(3, 4, generator=generator, dtype=DTYPE)
        loc = torch.cat([loc[:1], loc[:1] + 100, loc[1:]])
        tril = torch.randn(4, 4, 4, generator=generator, dtype=DTYPE).tril(-1) / 4
        tril = tril + (0.8 + torch.rand(4, 4, generator=generator, dtype=DTYPE)).diag_embed()
        weights = torch.tensor([0.2, 0.1, 0.3, 0.4], dtype=DTYPE)

        means, factors = grouped(loc, tril, weights)

        assert torch.equal(means[1], loc[1]) and torch.equal(factors[1], tril[1])
        near = [0, 2, 3]
        share = weights[near] / weights[near].sum()
        mean = share @ loc[near]
        second = tril[near] @ tril[near].mT + loc[near].unsqueeze(-1) * loc[near].unsqueeze(-2)
        covariance = (share[:, None, None] * second).sum(0) - mean.outer(mean)
        torch.testing.assert_close(means[0], mean)
        torch.testing.assert_close(factors[0] @ factors[0].T, covariance)
        torch.testing.assert_close(factors[0], torch.linalg.cholesky(covariance))

    def test_a_chain_is_one_group(self):
        """Neighbours overlap, and the ends of the chain do not."""
        loc, tril = gaussians([4.0 * k for k in range(9)], [1.0] * 9)
        means, factors = grouped(loc[[3, 8, 0, 5, 1, 7, 2, 6, 4]], tril, torch.ones(9))
        assert means.shape == (1, 1) and means.item() == pytest.approx(16.0)
        assert factors.item() == pytest.approx(math.sqrt(1 + 16 * 60 / 9))

    def test_what_cannot_be_computed_is_a_group_of_its_own(self):
        loc, tril = gaussians([0.0, math.nan, 0.1], [1.0, 1.0, 1.0])
        assert len(grouped(loc, tril, torch.ones(3))[0]) == 2
