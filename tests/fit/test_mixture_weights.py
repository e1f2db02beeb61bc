"""Weights of a mixture: shares of the mass are found, and what is not needed is dropped."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.mixture import GaussianMixture
from nfvi import FitError, Guide, LogDensity, MixtureGuide, Target
from nfvi.fit.mixture_weights import _fitted, _points, draws_of_each, mixture_weights
from nfvi.guides.mixture import AnyGuide
from nfvi.guides.placement import Placement

N = 2_000
FIVE = 5.0


def gaussian(x: float, sd: float = 1.0) -> Guide:
    """N((x, 0), sd² I), exactly."""
    place = Placement(torch.tensor([x, 0.0]), torch.full((2,), sd))
    return Guide("loc", 2, jitter=0.0, placement=place, dtype=torch.float64)


def modes(*shares: float, apart: float = 12.0) -> GaussianMixture:
    """Unit normals at 0, ``apart``, 2 · ``apart``, … with these shares."""
    k = len(shares)
    means = torch.zeros(k, 2)
    means[:, 0] = apart * torch.arange(k)
    return GaussianMixture(torch.tensor(shares), means, torch.eye(2).repeat(k, 1, 1))


def found(guides: list[AnyGuide], target: Target, seed: int = 0, n: int = N) -> Tensor:
    return mixture_weights(guides, target, n, torch.Generator().manual_seed(seed))


def relative_variance(sd: float) -> float:
    """Of p/q for the unit normal p and q = N(0, sd² I) in two dimensions."""
    return (sd**2 / math.sqrt(2 * sd**2 - 1)) ** 2 - 1


class TestShares:
    def test_exact_guides_get_the_exact_shares(self) -> None:
        """p / q is the same at all draws of a guide, so that there is no noise."""
        weights = found([gaussian(0), gaussian(12)], modes(0.8, 0.2))
        torch.testing.assert_close(weights, torch.tensor([0.8, 0.2], dtype=torch.float64))

    @pytest.mark.parametrize("seed", range(3))
    def test_guides_that_are_off_get_the_shares_of_the_mass_they_find(self, seed: int) -> None:
        """Within five standard errors of a ratio of two importance-sampling estimates.

        Common random numbers make the error less than that of independent draws.
        """
        sds = (1.3, 1.1)
        weights = found([gaussian(0, sds[0]), gaussian(12, sds[1])], modes(0.8, 0.2), seed)
        error = 0.8 * 0.2 * math.sqrt(sum(map(relative_variance, sds)) / N)
        assert abs(float(weights[0]) - 0.8) < FIVE * error
        assert float(weights.sum()) == pytest.approx(1)

    def test_guides_that_overlap_share_what_they_find(self) -> None:
        """The shares of two normals 2 sds apart: their information is a third of that of labels."""
        target = modes(0.7, 0.3, apart=2.0)
        weights = found([gaussian(0), gaussian(2)], target)
        error = math.sqrt(0.7 * 0.3 * 3 / (2 * N))
        assert abs(float(weights[0]) - 0.7) < FIVE * error

    def test_the_mixture_is_the_target(self) -> None:
        target = modes(0.5, 0.3, 0.2)
        guides = [gaussian(0), gaussian(12), gaussian(24)]
        mixed = MixtureGuide(guides, found(guides, target))
        x = mixed.sample(500, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(mixed.log_prob(x), target.log_prob(x), atol=1e-6, rtol=0)

    def test_a_seed_repeats_them_and_the_scale_of_the_target_does_not_matter(self) -> None:
        guides, target = [gaussian(0, 1.2), gaussian(12)], modes(0.8, 0.2)
        scaled = LogDensity(lambda z: target.log_prob(z) - 5_000.0, 2)
        assert torch.equal(found(guides, target), found(guides, target))
        torch.testing.assert_close(found(guides, scaled), found(guides, target))


class TestDropping:
    def test_one_mode_gives_one_guide(self) -> None:
        guides = [gaussian(0, sd) for sd in (1.02, 1.0, 0.98, 1.01)]
        weights = found(guides, modes(1.0))
        assert sorted(weights.tolist()) == [0.0, 0.0, 0.0, 1.0]

    def test_duplicates_are_merged_mode_by_mode(self) -> None:
        guides = [gaussian(x) for x in (0, 12, 0, 12, 0)]
        weights = found(guides, modes(0.8, 0.2))
        assert int((weights > 0).sum()) == 2
        assert float(weights[[0, 2, 4]].sum()) == pytest.approx(0.8)
        assert float(weights[[1, 3]].sum()) == pytest.approx(0.2)

    def test_the_lesser_fit_of_a_mode_goes(self) -> None:
        guides = [gaussian(0, 1.8), gaussian(0), gaussian(12), gaussian(12, 1.8)]
        assert (found(guides, modes(0.8, 0.2)) > 0).tolist() == [False, True, True, False]

    def test_a_guide_that_has_both_modes_is_enough(self) -> None:
        both = MixtureGuide([gaussian(0), gaussian(12)], [0.5, 0.5])
        assert found([gaussian(0), both, gaussian(12)], modes(0.5, 0.5)).tolist() == [0, 1, 0]

    def test_a_small_mode_stays_though_the_elbo_hardly_sees_it(self) -> None:
        """Losing 0.4 % of the mass costs 0.004 nats of ELBO, less than the 0.01 that counts."""
        weights = found([gaussian(0), gaussian(12)], modes(0.996, 0.004))
        assert float(weights[1]) == pytest.approx(0.004, rel=0.01)

    def test_a_mode_of_next_to_nothing_goes(self) -> None:
        assert found([gaussian(0), gaussian(12)], modes(0.9999, 0.0001)).tolist() == [1.0, 0.0]
        assert found([gaussian(0), gaussian(12)], modes(1 - 1e-7, 1e-7)).tolist() == [1.0, 0.0]

    def test_a_guide_where_there_is_no_mass_goes(self) -> None:
        weights = found([gaussian(0), gaussian(30), gaussian(12)], modes(0.8, 0.2))
        torch.testing.assert_close(weights, torch.tensor([0.8, 0.0, 0.2], dtype=torch.float64))

    @pytest.mark.parametrize("value", [math.nan, -math.inf])
    def test_a_guide_whose_draws_have_no_density_goes(self, value: float) -> None:
        normal = modes(0.8, 0.2)
        cut = LogDensity(lambda z: normal.log_prob(z).where(z[:, 0] < 20, value), 2)
        weights = found([gaussian(0), gaussian(40), gaussian(12)], cut)
        torch.testing.assert_close(
            weights, torch.tensor([0.8, 0.0, 0.2], dtype=torch.float64), atol=1e-6, rtol=0
        )

    def test_draws_without_a_density_are_left_out(self) -> None:
        """Half of the second mode is cut away: its share of the mass is 0.1 in 0.9."""
        normal = modes(0.8, 0.2)
        cut = LogDensity(lambda z: normal.log_prob(z).where(z[:, 0] < 12, -math.inf), 2)
        weights = found([gaussian(0), gaussian(12)], cut)
        # The number of draws that are left is binomial.
        error = 1 / 9 * math.sqrt(1 / N)
        assert abs(float(weights[1]) - 1 / 9) < FIVE * error

    def test_one_guide(self) -> None:
        assert found([gaussian(0)], modes(0.8, 0.2)).tolist() == [1.0]


class TestWrongInput:
    def test_no_guide(self) -> None:
        with pytest.raises(ValueError, match="at least one guide"):
            found([], modes(1.0))

    def test_no_draw_counts(self) -> None:
        nowhere = modes(1.0)
        nowhere.log_prob = lambda z: torch.full_like(z[:, 0], torch.nan)
        with pytest.raises(FitError, match="no draw of the guides"):
            found([gaussian(0), gaussian(3)], nowhere)


SIX = [gaussian(5.0 * k, 1.0 + 0.1 * k) for k in range(6)]


class TestCost:
    """Of many guides: what is asked of each, and what is left out where time is up."""

    def points(self, apart: float = 5.0):
        target, generator = modes(*[1 / 6] * 6, apart=apart), torch.Generator().manual_seed(0)
        six = [gaussian(apart * k, 1.0 + 0.1 * k) for k in range(6)]
        return _points(six, target, 300, generator, lambda: False)

    def test_each_guide_is_asked_for_densities_once(self, monkeypatch) -> None:
        asked = []
        log_prob = Guide.log_prob

        def counted(guide, x, *args):
            asked.append(len(x))
            return log_prob(guide, x, *args)

        monkeypatch.setattr(Guide, "log_prob", counted)
        self.points()
        assert [n for n in asked if n > 4] == [6 * 300] * 6  # the small ones size the pieces

    def test_the_elbo_of_each_guide_is_that_of_a_mixture_of_it_alone(self) -> None:
        points = self.points()
        alone = torch.eye(6, dtype=torch.float64)
        expected = torch.stack([points.terms(weights).mean() for weights in alone])
        torch.testing.assert_close(points.elbos(), expected)

    def test_the_density_of_a_mixture_is_that_of_its_guides(self) -> None:
        """Also where the guides that it has are far below one that it has not."""
        points = self.points(apart=20.0)
        for weights in ([0.3, 0.0, 0.2, 0.1, 0.15, 0.25], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]):
            w = torch.tensor(weights, dtype=torch.float64)
            expected = (points.log_q + w.log()[:, None, None]).logsumexp(0)
            near = expected > points.everything - 600
            found = points.log_mixture(w)
            torch.testing.assert_close(found[near], expected[near], rtol=0, atol=1e-9)
            assert (found[~near] < points.everything[~near] - 599).all()

    def test_no_other_weights_are_nearer_by_a_thousandth_of_a_nat(self) -> None:
        """By the concavity of Σ ω log q in the weights: of guides that overlap."""
        points = self.points(apart=2.0)
        weights = _fitted(points, torch.ones(6, dtype=torch.float64))
        ratio = (points.log_q - points.log_mixture(weights)).exp()
        assert float((points.omega * ratio).sum((1, 2)).max()) < 1 + 2e-3
        assert float(weights.sum()) == pytest.approx(1)

    def test_guides_far_apart_have_weights_alone(self) -> None:
        """At the draws of the others one alone has next to no density, down to none at all."""
        points = self.points(apart=20.0)
        for k in range(6):
            alone = (torch.arange(6) == k).double()
            torch.testing.assert_close(_fitted(points, alone), alone)

    def test_a_mixture_without_a_guide_is_that_of_the_others(self) -> None:
        points = self.points()
        weights = torch.tensor([0.3, 0.0, 0.2, 0.1, 0.15, 0.25], dtype=torch.float64)
        seen = list(points.without_each(weights))
        assert [int((w == 0).nonzero()[-1]) for w, _ in seen[1:3]] == [2, 3] and len(seen) == 5
        for others, log_mixture in seen:
            assert float(others.sum()) == pytest.approx(1)
            expected = points.log_mixture(others)
            # Where the guide that is left out has all but 10⁻⁹ of the density, rounding is seen.
            near = expected > points.log_mixture(weights) - 20
            torch.testing.assert_close(log_mixture[near], expected[near], rtol=0, atol=1e-6)
            assert (log_mixture[~near] < points.log_mixture(weights)[~near] - 10).all()
            found, exact = points.terms(others, log_mixture), points.terms(others)
            torch.testing.assert_close(found.mean(), exact.mean(), rtol=0, atol=1e-6)

    def test_more_than_twenty_guides_share_forty_thousand_draws(self) -> None:
        assert [draws_of_each(k) for k in (1, 20, 40, 80, 1_000)] == [2_000, 2_000, 1_000, 500, 200]

    def test_where_time_is_up_the_first_guides_have_all_the_weight(self) -> None:
        target, calls = modes(*[1 / 6] * 6, apart=5.0), iter([False, True])
        weights = mixture_weights(
            SIX, target, 500, torch.Generator().manual_seed(0), lambda: next(calls, True)
        )
        assert weights.shape == (6,) and float(weights.sum()) == pytest.approx(1)
        assert (weights > 0).tolist() == [True, True, False, False, False, False]
