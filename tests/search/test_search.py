"""The whole search: what it finds and does not find, against targets with known masses."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from models import banana, funnel, gaussian_20d, make_gaussian
from models.mixture import GaussianMixture
from nfvi.guides import Guide
from nfvi.search import MOST_PLACES, MissedMass, search_mass
from nfvi.search.search import (
    DRAWS,
    DRAWS_FEW_DIMENSIONS,
    FEWEST_DRAWS,
    _choose,
    draws_for,
)
from nfvi.search.wide import FULL_RANK_LIMIT
from nfvi.starts import gaussian_guide
from nfvi.targets import LogDensity, PyroTarget, Target

DTYPE = torch.float64
FIVE = 5.0
SOME = 131_072


class Exact:
    """The target itself as a guide: it has a sampler, and its log Z is known."""

    device = torch.device("cpu")

    def __init__(self, target: Target, dtype: torch.dtype = DTYPE) -> None:
        self.target, self.dim, self.dtype = target, target.dim, dtype

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.target.sample(n, generator=generator, dtype=self.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.target.log_prob(z) - self.target.log_normalizer

    def rsample_and_log_prob(self, n: int, *, generator: Any) -> tuple[Tensor, Tensor]:
        z = self.sample(n, generator=generator)
        return z, self.log_prob(z)


def searched(
    guide: Any, target: Target, log_z: float | None = None, *, seed: int = 0, **options: Any
) -> MissedMass:
    """A search with some draws; log Z is the known one if it is not given."""
    log_z = target.log_normalizer if log_z is None else log_z
    generator = torch.Generator().manual_seed(seed)
    return search_mass(guide, target, log_z, generator, **{"draws": SOME, **options})


def mixture(share: float, at: float = 12.0, dim: int = 2, sd: float = 1.0) -> GaussianMixture:
    """A unit normal, and one of the given sd and share of the mass at a distance of it."""
    weights = torch.tensor([1 - share, share], dtype=DTYPE)
    means = torch.zeros(2, dim, dtype=DTYPE)
    means[1, -1] = at
    covariances = torch.eye(dim, dtype=DTYPE).repeat(2, 1, 1)
    covariances[1] *= sd**2
    return GaussianMixture(weights, means, covariances)


def unit(dim: int = 2, dtype: torch.dtype = DTYPE) -> Guide:
    return gaussian_guide(torch.zeros(dim, dtype=dtype), torch.ones(dim, dtype=dtype), dtype)


def wells(dim: int) -> LogDensity:
    """Wells at −2 and 2 in each coordinate: 2^d modes."""
    return LogDensity(lambda z: (4 * z**2 - 0.5 * z**4).sum(-1), dim)


def test_more_modes_than_are_looked_at():
    """One of 1 024 wells is covered: what lies at 64 others is not all that is missed."""
    dim = 10
    one = gaussian_guide(
        torch.full((dim,), 2.0, dtype=DTYPE), 0.25 * torch.eye(dim, dtype=DTYPE), DTYPE
    )
    log_z = dim * (8 + math.log(0.25 * math.sqrt(math.tau)))
    found = searched(one, wells(dim), log_z)
    assert found.crowded and not found.clean and len(found.places) == MOST_PLACES


class Pairs(Exact):
    """A sixth at −2 and the rest at 2 in each coordinate, but for some that are at 2 alone."""

    def __init__(self, dim: int, without: tuple[int, ...] = ()) -> None:
        self.dim, self.dtype, self.without = dim, DTYPE, list(without)
        self.shares = torch.full((dim,), 1 / 6, dtype=DTYPE)
        self.shares[self.without] = 0.0

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, self.dim, generator=generator, dtype=DTYPE)
        low = torch.rand(n, self.dim, generator=generator, dtype=DTYPE) < self.shares
        return 0.3 * noise + torch.where(low, -2.0, 2.0)

    def log_prob(self, z: Tensor) -> Tensor:
        parts = torch.stack(
            [self.shares.log() + _normal(z + 2), (-self.shares).log1p() + _normal(z - 2)]
        )
        return parts.logsumexp(0).sum(-1)


def _normal(x: Tensor) -> Tensor:
    return -0.5 * (x / 0.3).square() - math.log(0.3 * math.sqrt(math.tau))


@pytest.mark.parametrize("seed", range(2))
def test_one_side_of_a_pair_among_a_million_modes(seed):
    """A sixth of the mass, at modes of which ascents come to such as have 10⁻⁹ of it each."""
    dim = 20
    target = LogDensity(Pairs(dim).log_prob, dim)
    found = searched(Pairs(dim, without=(7,)), target, math.log(5 / 6), seed=seed, draws=32_768)
    assert not found.clean
    assert searched(Pairs(dim), target, 0.0, seed=seed, draws=32_768).clean


def test_how_far_the_ends_reach():
    """Both sides of every pair, whatever of it the guide knows; and nothing without ascents."""
    target = LogDensity(Pairs(6).log_prob, 6)
    for guide in (Pairs(6), Pairs(6, without=(0, 1, 2, 3, 4, 5))):
        low, high = searched(guide, target, 0.0).extent
        torch.testing.assert_close(low, torch.full_like(low, -2.0), atol=0.05, rtol=0)
        torch.testing.assert_close(high, torch.full_like(high, 2.0), atol=0.05, rtol=0)
    many = FULL_RANK_LIMIT + 1
    normal = make_gaussian(many, condition=1.0, seed=0)
    assert searched(Exact(normal), normal, draws=2_000).extent is None


def test_what_is_known_of_a_prior_is_used():
    """A mode 40 sds off, which a prior around it shows to a thousand draws."""
    target = mixture(0.5, at=40.0)
    known = torch.tensor([0.0, 40.0], dtype=DTYPE), torch.ones(2, dtype=DTYPE)
    asked = []

    def prior_of(*arguments: Any) -> tuple[Tensor, Tensor]:
        asked.append(arguments)
        return known

    found = searched(unit(), target, math.log(0.5), draws=1_024, prior_of=prior_of)
    assert len(asked) == 1 and found.prior and not found.clean
    assert not searched(unit(), target, math.log(0.5), draws=1_024).prior


def test_modes_that_are_known_do_not_take_all_starts():
    """Eight starts: the draws of highest log p lie on a narrow mode that the guide covers.

    Off it, half of the mass is a wide normal of a lower peak, and the starts there are half of all.
    """
    target = mixture(0.5, at=12.0, sd=6.0)
    z = torch.zeros(64, 2, dtype=DTYPE)
    z[32:, 1] = 12.0
    z += torch.linspace(0, 1e-3, 64, dtype=DTYPE).unsqueeze(1)
    log_p = target.log_prob(z)
    assert log_p[:32].min() > log_p[32:].max()
    chosen = _choose(unit(), math.log(0.5), z, log_p, [torch.arange(64)], 8)
    assert len(chosen.unique()) == 8 and int((chosen >= 32).sum()) == 4


class TestClean:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("target", [banana, funnel, gaussian_20d], ids=str)
    def test_where_the_guide_is_right(self, target, seed):
        found = searched(Exact(target), target, seed=seed)
        assert found.clean and found.share == 0 and not found.places
        assert found.log_evidence == found.guide_log_evidence == target.log_normalizer

    def test_where_it_is_close(self):
        """An sd that is off by a fifth is no missed mass."""
        target = make_gaussian(3, condition=10.0, seed=0)
        factor = torch.linalg.cholesky(target.covariance.double())
        guide = gaussian_guide(target.mean.double(), 0.8 * factor, DTYPE)
        assert searched(guide, target).share < 0.01

    def test_in_one_dimension(self):
        target = make_gaussian(1, seed=0)
        found = searched(Exact(target), target)
        assert found.clean and found.starts > 0

    def test_in_many_dimensions_there_are_no_ascents(self):
        dim = FULL_RANK_LIMIT + 1
        target = LogDensity(lambda z: -0.5 * z.square().sum(-1), dim)
        log_z = 0.5 * dim * math.log(2 * math.pi)
        found = searched(unit(dim), target, log_z, draws=1_000)
        assert found.clean and (found.starts, found.batched_evaluations) == (0, 0)
        assert "says little in so many dimensions" in " ".join(str(found).split())


class TestFound:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(
        ("share", "at", "dim", "sd"),
        [
            (0.05, 12.0, 2, 1.0),
            (0.5, 12.0, 2, 1.0),
            (0.9, 12.0, 2, 1.0),
            (0.3, -40.0, 1, 0.2),
            (0.4, 8.0, 10, 1.0),
        ],
    )
    def test_a_mode_with_its_exact_share(self, seed, share, at, dim, sd):
        target = mixture(share, at, dim, sd)
        found = searched(unit(dim), target, math.log(1 - share), seed=seed)
        assert not found.clean and len(found.places) == 1
        off = FIVE * found.share_se + 1e-4  # the curvature is known to some digits
        assert abs(found.share - share) < off < 0.02
        assert abs(found.log_evidence) < off / (1 - share)
        place = found.places[0]
        assert abs(float(place.z[-1]) - at) < 0.05 * sd
        assert place.share == pytest.approx(found.share, abs=1e-6)
        # p / (q Z) at its mode, with q as at a distance of a normal's mean.
        excess = 0.5 * at**2 - dim * math.log(sd) + math.log(share / (1 - share))
        assert place.log_excess == pytest.approx(excess, rel=0.01)

    def test_two_modes_are_two_places_the_larger_one_first(self):
        weights = torch.tensor([0.5, 0.2, 0.3], dtype=DTYPE)
        means = torch.tensor([[0.0, 0.0], [12.0, 0.0], [0.0, -12.0]], dtype=DTYPE)
        target = GaussianMixture(weights, means, torch.eye(2, dtype=DTYPE).expand(3, 2, 2))
        found = searched(unit(), target, math.log(0.5))
        assert [round(place.share, 2) for place in found.places] == [0.3, 0.2]
        assert abs(found.share - 0.5) < FIVE * found.share_se + 1e-4

    def test_single_precision(self):
        found = searched(unit(dtype=torch.float32), mixture(0.4), math.log(0.6))
        assert abs(found.share - 0.4) < FIVE * found.share_se + 0.01

    def test_what_the_guide_s_draws_show_already_is_no_missed_mass(self):
        """A guide with a hundredth of its draws there, where 40 % are: weights count that."""
        target = mixture(0.4)
        thin = mixture(0.01)
        found = searched(Exact(thin), target, 0.0)
        assert found.share < 0.1 < 0.4

    def test_a_needle_in_ten_dimensions_is_not_seen(self):
        """What the text says cannot be excluded: of 131 072 draws none comes near it."""
        target = mixture(0.4, 8.0, 10, 0.05)
        assert searched(unit(10), target, math.log(0.6)).clean

    def test_a_mode_at_the_scale_of_the_prior(self):
        """300 away from a guide of sd 1: beyond 10 of its sds, and within some of the prior's."""

        def model():
            x = pyro.sample("x", dist.Normal(torch.zeros(2), 100.0).to_event(1))
            left, right = -0.5 * x.square().sum(-1), -0.5 * (x - 200).square().sum(-1)
            pyro.factor("two", torch.logaddexp(left, right))

        target = PyroTarget(model)
        # The prior has a density of 1 / (2π 10⁴) in the middle, and exp(−4) of that at the other.
        log_z = -2 * math.log(100.0)
        found = searched(unit(), target, log_z)
        share = math.exp(-4) / (1 + math.exp(-4))
        assert found.prior and abs(found.share - share) < FIVE * found.share_se + 1e-3
        place = found.places[0]
        torch.testing.assert_close(place.z, torch.full((2,), 200.0, dtype=DTYPE), rtol=0.01, atol=0)


class TestRepeats:
    def test_a_seed_gives_the_same_result(self):
        target = mixture(0.4)
        a, b, c = (
            searched(unit(), target, math.log(0.6), seed=seed, draws=20_000) for seed in (1, 1, 2)
        )
        assert a.as_dict() == b.as_dict() and a.as_dict() != c.as_dict()

    def test_global_state_is_left_alone(self):
        """No draw is taken from torch's own generator."""
        before = torch.get_rng_state()
        searched(unit(), mixture(0.4), math.log(0.6), draws=20_000)
        assert torch.equal(torch.get_rng_state(), before)


class TestCosts:
    def test_what_it_counts_is_what_the_target_sees(self):
        inner, seen, gradients = mixture(0.4), [], []

        def log_prob(z):
            (gradients if z.requires_grad else seen).append(len(z))
            return inner.log_prob(z)

        target = LogDensity(log_prob, 2, batched=True)
        target.check(DTYPE)
        seen.clear(), gradients.clear()
        found = searched(unit(), target, math.log(0.6), draws=20_000, starts=32)
        assert (found.draws, found.starts) == (20_000, 32)
        assert found.batched_evaluations == len(gradients)
        assert found.gradient_evaluations == sum(gradients)
        assert sum(seen) >= 20_000

    def test_a_target_that_is_much_work_has_fewer_draws(self):
        z = torch.zeros(8, 2, dtype=DTYPE)
        cheap = LogDensity(lambda z: -0.5 * z.square().sum(-1), 2)
        data = torch.ones(2, 2_000, dtype=DTYPE)
        dear = LogDensity(lambda z: -0.5 * (z @ data.to(z)).square().sum(-1), 2)
        heaviest = LogDensity(lambda z: -0.5 * (z.repeat(1, 20_000) ** 2).sum(-1), 2)
        six = LogDensity(lambda z: -0.5 * z.square().sum(-1), 6)
        assert draws_for(cheap, z) == DRAWS_FEW_DIMENSIONS
        assert draws_for(six, torch.zeros(8, 6, dtype=DTYPE)) == DRAWS
        assert FEWEST_DRAWS < draws_for(dear, z) < DRAWS
        assert draws_for(heaviest, z) == FEWEST_DRAWS

    def test_it_ends_early_when_told(self):
        found = searched(unit(), mixture(0.4), math.log(0.6), enough=lambda _: True)
        assert found.cut and found.draws < SOME
        assert "cut short by the budget" in str(found)
        # The starts, and the curvature at each place that the draws alone have found.
        assert found.batched_evaluations <= 1 + MOST_PLACES


class TestAnyTarget:
    @pytest.mark.parametrize("outside", [math.nan, -math.inf, math.inf])
    def test_values_that_are_no_numbers(self, outside):
        """Beyond 20 in a coordinate, where a third of the wide draws fall; the mode is found."""
        inner = mixture(0.4)

        def log_prob(z):
            return torch.where(z.abs().amax(-1) < 20, inner.log_prob(z), outside)

        found = searched(unit(), LogDensity(log_prob, 2), math.log(0.6))
        assert abs(found.share - 0.4) < FIVE * found.share_se + 1e-4

    @pytest.mark.parametrize("value", [math.nan, -math.inf])
    def test_a_target_that_is_nowhere_a_number(self, value):
        class Nowhere(LogDensity):
            def log_prob(self, z):
                assert len(z)
                return 0 * z.sum(-1) + value

        target = Nowhere(lambda z: z.sum(-1), 2)
        found = searched(unit(), target, 0.0, draws=2_000)
        assert found.clean and found.starts == 0

    @pytest.mark.parametrize("log_z", [math.nan, -math.inf])
    def test_without_a_log_evidence_nothing_is_searched(self, log_z):
        found = searched(unit(), mixture(0.4), log_z)
        assert math.isnan(found.share) and not found.clean and found.draws == 0

    def test_draws_of_the_guide_that_are_no_numbers(self):
        class Lost(Guide):
            def sample(self, n, *, generator=None):
                x = super().sample(n, generator=generator)
                x[:3] = torch.nan
                return x

        nothing = torch.Generator().manual_seed(0)
        guide = Lost("loc", 2, jitter=0.0, dtype=DTYPE, generator=nothing)
        assert not searched(guide, mixture(0.4), math.log(0.6)).clean
