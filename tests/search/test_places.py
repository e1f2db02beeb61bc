"""Places where a guide has no mass, and how much there is, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.mixture import GaussianMixture
from nfvi.search.ascent import Ends
from nfvi.search.places import (
    MOST_PLACES,
    Gaussians,
    distinct_places,
    is_crowded,
    log_q_at,
    modes_among,
    weigh,
)
from nfvi.starts import gaussian_guide
from nfvi.targets import LogDensity

DTYPE = torch.float64
FIVE = 5.0
LOG_Z = math.log(100 * math.tau)
EYE = torch.eye(2, dtype=DTYPE)
MEANS = torch.tensor([[0.0, 0.0], [12.0, 0.0]], dtype=DTYPE)
GUIDE = gaussian_guide(MEANS[0], EYE, DTYPE)


def mixture(share: float) -> GaussianMixture:
    """The guide with the rest of the mass, and a unit normal at (12, 0) with a share of it."""
    weights = torch.tensor([1 - share, share], dtype=DTYPE)
    return GaussianMixture(weights, MEANS, EYE.expand(2, 2, 2))


def ends_at(z: Tensor, target: LogDensity) -> Ends:
    return Ends(z, target.log_prob(z), EYE.expand(len(z), 2, 2).clone(), 1, len(z))


def gaussians(*loc: tuple[float, float], sd: float = 1.0) -> Gaussians:
    at = torch.tensor(loc, dtype=DTYPE)
    return Gaussians(at, sd * EYE.expand(len(at), 2, 2), at[:, 0] * 0)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestDistinctPlaces:
    def test_what_the_guide_has_is_none(self):
        target = mixture(0.4)
        found = distinct_places(target, GUIDE, math.log(0.6), ends_at(MEANS, target), DTYPE)
        torch.testing.assert_close(found.loc, MEANS[1:])
        torch.testing.assert_close(found.tril, EYE[None], rtol=1e-4, atol=1e-4)
        # The curvature at one place takes one batch of 2 d points.
        assert (found.iterations, found.gradient_evaluations) == (1, 4)

    def test_the_curvature_of_a_flat_top_is_not_believed(self):
        """−Σ (z − 12)⁴ has none at its mode; its mass, 2 Γ(5/4) a coordinate, is found anyway.

        128 draws from a Gaussian 3 to 4 times as wide in each coordinate: some 20 % of error.
        """
        mode = torch.full((1, 2), 12.0, dtype=DTYPE) + 1e-4
        target = LogDensity(lambda z: -(z - 12).pow(4).sum(-1), 2)
        found = distinct_places(target, GUIDE, 0.0, ends_at(mode, target), DTYPE)
        assert float(found.tril[0].diagonal().max()) < 3.0
        mass = float(weigh(target, GUIDE, 0.0, found, stream(), DTYPE).masses.sum())
        assert mass == pytest.approx((2 * math.gamma(1.25)) ** 2, rel=0.6)

    def test_ends_less_than_an_sd_apart_are_one(self):
        target = mixture(0.4)
        z = MEANS[1] + torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, 0.9], [0.0, 1.5]], dtype=DTYPE)
        found = distinct_places(target, GUIDE, math.log(0.6), ends_at(z, target), DTYPE)
        torch.testing.assert_close(found.loc, z[[0, 3]])

    @pytest.mark.parametrize(("factor", "places"), [(2.9, 0), (3.1, 1)])
    def test_three_times_q_z_is_the_limit(self, factor, places):
        target = LogDensity(lambda z: GUIDE.log_prob(z) + math.log(factor), 2)
        ends = ends_at(MEANS[:1], target)
        assert len(distinct_places(target, GUIDE, 0.0, ends, DTYPE).loc) == places

    def test_the_highest_are_kept_where_there_are_too_many(self):
        """A ridge of 100 ends, each of which has its own place."""
        z = torch.stack([20.0 * torch.arange(1, 101), torch.zeros(100)], 1).to(DTYPE)
        target = LogDensity(
            lambda x: (
                -0.5 * (x[:, None] - z.to(x)).square().sum(-1) - torch.arange(100).to(x)
            ).logsumexp(-1),
            2,
        )
        found = distinct_places(target, GUIDE, 0.0, ends_at(z, target), DTYPE)
        torch.testing.assert_close(found.loc, z[:MOST_PLACES])

    def test_many_places_share_batches_of_curvatures(self):
        """Twenty modes of sd 0.5 to 1, each of them twice: batches of 1, 2, 4, 8 and 10 ends."""
        at = torch.zeros(20, 2, dtype=DTYPE)
        at[:, 0] = 12.0 + 20.0 * torch.arange(20)
        sd = torch.linspace(0.5, 1.0, 20, dtype=DTYPE)

        def log_prob(z: Tensor) -> Tensor:
            near = ((z[:, 0] - 12) / 20).round().long().clamp(0, 19)
            return -1e-4 * near - 0.5 * ((z - at[near]) / sd[near, None]).square().sum(1)

        target = LogDensity(log_prob, 2)
        twice = torch.cat([at, at + 0.1])
        found = distinct_places(target, GUIDE, 0.0, ends_at(twice, target), DTYPE)
        torch.testing.assert_close(found.loc, at)
        torch.testing.assert_close(found.tril, sd[:, None, None] * EYE, rtol=1e-4, atol=1e-6)
        assert (found.iterations, found.gradient_evaluations) == (5, 100)

    def test_a_place_is_narrowed_by_its_own_fall_and_not_by_that_of_another(self):
        """Flat tops of −(z ± 12)⁴, and a curved ridge, which falls by 1 800 nats within an sd.

        The ridge shares a batch with the second flat top, and keeps the sds of its curvature.
        """

        def log_prob(z: Tensor) -> Tensor:
            x, y = z[:, 0] - 40, z[:, 1] - 40
            ridge = -0.1 - 0.5 * x.square() - 0.5 * ((y - 30 * x.square()) / 0.5).square()
            right, left = (-(z - side).pow(4).sum(-1) for side in (12, -12))
            return torch.where(z[:, 0] > 26, ridge, torch.where(z[:, 0] > 0, right, left - 0.2))

        target = LogDensity(log_prob, 2)
        at = torch.tensor([[12.0, 12.0], [40.0, 40.0], [-12.0, -12.0]], dtype=DTYPE)
        at[[0, 2]] += 1e-4
        found = distinct_places(target, GUIDE, 0.0, ends_at(at, target), DTYPE)
        torch.testing.assert_close(found.loc, at)
        sds = torch.tensor([1.0, 0.5], dtype=DTYPE).diag_embed()
        torch.testing.assert_close(found.tril[1], sds, rtol=1e-3, atol=1e-3)
        assert float(found.tril[[0, 2]].amax()) < 3.0

    def test_bfgs_s_covariance_stands_in_where_there_is_no_curvature(self):
        """On a saddle, as where an ascent has not ended."""
        curves = torch.tensor([-1.0, 0.1], dtype=DTYPE)
        target = LogDensity(lambda z: 0.5 * ((z - 12).square() @ curves.to(z)), 2)
        at = torch.full((1, 2), 12.0, dtype=DTYPE)
        found = distinct_places(target, GUIDE, 0.0, ends_at(at, target), DTYPE)
        torch.testing.assert_close(found.tril, EYE[None])

    def test_ends_that_are_nowhere(self):
        target = LogDensity(lambda z: z[:, 0] * math.nan, 2)
        ends = Ends(MEANS, torch.full((2,), -math.inf, dtype=DTYPE), EYE.expand(2, 2, 2), 1, 2)
        assert len(distinct_places(target, GUIDE, 0.0, ends, DTYPE).loc) == 0


FAR = torch.tensor(50.0)


class TestCrowded:
    """Modes of equal mass, a hundred of sd 1 on a line."""

    def places(self, count: int = MOST_PLACES, off: float = 0.0, sd: float = 1.0) -> Gaussians:
        at = torch.zeros(count, 2, dtype=DTYPE)
        at[:, 0] = 20.0 * torch.arange(count) + off
        return Gaussians(at, sd * EYE.expand(count, 2, 2), torch.zeros(count, dtype=DTYPE))

    @property
    def target(self) -> LogDensity:
        def log_p(z: Tensor) -> Tensor:
            nearest = z[:, :1] - 20.0 * (z[:, :1] / 20).round().detach()
            return -0.5 * torch.cat([nearest, z[:, 1:]], 1).square().sum(1)

        return LogDensity(log_p, 2)

    def modes(self, places: Gaussians, log_z: float = LOG_Z) -> Tensor:
        return modes_among(self.target, log_z, places, DTYPE)

    def test_as_many_modes_as_are_looked_at(self):
        modes = self.modes(self.places())
        assert modes.all() and is_crowded(modes, FAR.expand(len(modes)))
        assert not is_crowded(
            modes, torch.full((len(modes),), 3.0)
        )  # a flow that is a bit low there

    def test_fewer(self):
        modes = self.modes(self.places(MOST_PLACES - 1))
        assert modes.all() and not is_crowded(modes, FAR.expand(len(modes)))

    def test_ascents_that_stopped_on_the_way(self):
        """Half an sd from the modes, the gradient says so."""
        modes = self.modes(self.places(off=0.5))
        assert not modes.any() and not is_crowded(modes, FAR.expand(len(modes)))

    def test_modes_without_mass(self):
        """Each holds less than 10⁻¹² of the evidence; with 10⁻⁸ they still count."""
        assert not self.modes(self.places(), LOG_Z + math.log(1e13)).any()
        assert self.modes(self.places(), LOG_Z + math.log(1e6)).all()

    def test_none(self):
        assert not is_crowded(self.modes(self.places(0)), torch.zeros(0))


class TestWeigh:
    @pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
    def test_the_mass_of_a_gaussian(self, share):
        """With the right Gaussian there all weights are equal: no error but that of rounding."""
        target = mixture(share)
        found = weigh(target, GUIDE, math.log(1 - share), gaussians((12, 0)), stream(), DTYPE)
        assert found.masses.tolist() == pytest.approx([share / (1 - share)])
        assert found.error < 1e-6 and found.evaluations == 128

    @pytest.mark.parametrize("seed", range(5))
    def test_the_mass_of_what_is_no_gaussian_within_its_error(self, seed):
        """A mode exp(−x²/2 − x⁴/8) in each coordinate, whose mass is known by quadrature."""
        x = torch.linspace(-8, 8, 4_001, dtype=DTYPE)
        mass = float(torch.trapezoid((-0.5 * x**2 - x**4 / 8).exp(), x)) ** 2

        def log_p(z):
            x = z - MEANS[1].to(z)
            return torch.logaddexp(GUIDE.log_prob(z), (-0.5 * x**2 - x**4 / 8).sum(-1))

        found = weigh(LogDensity(log_p, 2), GUIDE, 0.0, gaussians((12, 0)), stream(seed), DTYPE)
        assert 0 < found.error < 0.2 * mass
        assert abs(float(found.masses.sum()) - mass) < FIVE * found.error

    def test_places_that_overlap_are_not_counted_twice(self):
        target = mixture(0.4)
        found = weigh(target, GUIDE, math.log(0.6), gaussians((12, 0), (12, 0.5)), stream(), DTYPE)
        assert abs(float(found.masses.sum()) - 2 / 3) < FIVE * found.error < 0.2
        assert float(found.masses.min()) > 0.2

    def test_nothing_is_missed_where_the_guide_is_right(self):
        target = LogDensity(GUIDE.log_prob, 2)
        found = weigh(target, GUIDE, 0.0, gaussians((0, 0), (12, 0)), stream(), DTYPE)
        assert found.masses.tolist() == [0.0, 0.0] and found.error == 0.0

    def test_values_that_are_no_numbers_weigh_nothing(self):
        target = mixture(0.4)
        edges = torch.tensor([12.0, 0.0], dtype=DTYPE)

        def log_p(z):
            usable = (z[:, 0] < 5) | (z > edges.to(z)).all(-1)
            return torch.where(usable, target.log_prob(z), math.nan)

        half = LogDensity(log_p, 2)
        found = weigh(half, GUIDE, math.log(0.6), gaussians((12, 0)), stream(), DTYPE)
        # A quarter of the mass, of 2/3, which 128 draws know to 2/3 √(0.25 · 0.75 / 128) = 0.026.
        assert abs(float(found.masses[0]) - 0.25 * 2 / 3) < FIVE * found.error < 0.15


def test_log_q_where_the_guide_s_inverse_fails():
    class Lost:
        dtype = torch.float32

        def log_prob(self, z):
            return torch.full_like(z[:, 0], torch.nan)

    assert log_q_at(Lost(), MEANS).tolist() == [-math.inf, -math.inf]


def test_gaussians_have_their_density():
    places = Gaussians(MEANS, torch.stack([EYE, 2 * EYE + EYE.roll(1, 0).tril()]), MEANS[:, 0])
    x = torch.randn(7, 2, generator=stream(), dtype=DTYPE)
    for k in range(2):
        exact = torch.distributions.MultivariateNormal(MEANS[k], scale_tril=places.tril[k])
        torch.testing.assert_close(places.log_prob(x)[k], exact.log_prob(x))
