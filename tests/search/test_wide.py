"""Wide draws: their scales, and the moments that they stand on."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from nfvi.guides import Guide
from nfvi.search.wide import (
    CUT,
    DF,
    DRAWS,
    FULL_RANK_LIMIT,
    REACH,
    moments,
    prior_scale,
    wide_draws,
)
from nfvi.starts import gaussian_guide
from nfvi.targets import LogDensity, PyroTarget

DTYPE = torch.float64
LOC = torch.tensor([3.0, -1.0], dtype=DTYPE)
TRIL = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=DTYPE)
PRIOR = torch.tensor([-100.0, 5.0], dtype=DTYPE), torch.tensor([50.0, 0.1], dtype=DTYPE)
FIVE = 5.0


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["no prior", "prior"])
@pytest.mark.parametrize("tril", [TRIL, TRIL.diagonal()], ids=["full", "diagonal"])
def test_scales(tril, prior):
    """Six groups, each of a t of 5 degrees of freedom: variance 5/3 of its scale², kurtosis 9.

    The error of a variance of n draws is √(8 / n) of it: within five of those.
    """
    n = 240_000
    z = wide_draws(LOC, tril, prior, n, stream())
    middle, scale = (torch.zeros(2), torch.ones(2)) if prior is None else prior
    lower = tril if tril.dim() == 2 else tril.diag_embed()
    share = n / 6
    for k, reach in enumerate(REACH):
        near, far = z[2 * k :: 6], z[2 * k + 1 :: 6]
        for x, mean, covariance in (
            (near, LOC, lower @ lower.T),
            (far, middle, scale.double().square().diag()),
        ):
            assert len(x) == share
            expected = DF / (DF - 2) * reach**2 * covariance
            sd = expected.diagonal().sqrt()
            assert bool(((x.mean(0) - mean).abs() < FIVE * sd / share**0.5).all())
            off = (x.T.cov() - expected) / sd / sd.unsqueeze(1)
            assert float(off.abs().max()) < FIVE * math.sqrt(8 / share)


def test_a_seed_gives_the_same_draws():
    a, b, c = (wide_draws(LOC, TRIL, None, 100, stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


class TestPrior:
    def test_its_median_and_scale(self):
        """A median of 64 draws is known to 1.25 sd / √64, and a scale by quartiles to 15 %."""

        def model():
            pyro.sample("a", dist.Normal(500.0, 20.0))
            pyro.sample("b", dist.Cauchy(torch.zeros(2), 3.0).to_event(1))

        middle, scale = prior_scale(PyroTarget(model), stream())
        # A Cauchy law has its quartiles at ± its scale.
        right = torch.tensor([20.0, 2 * 3 / 1.349, 2 * 3 / 1.349], dtype=DTYPE)
        at = torch.tensor([500.0, 0.0, 0.0], dtype=DTYPE)
        assert bool(((middle - at).abs() < FIVE * 1.25 * right / 8).all())
        assert bool(((scale / right).log().abs() < FIVE * 0.15).all())

    def test_a_density_has_none(self):
        assert prior_scale(LogDensity(lambda z: -z.square().sum(-1), 2), stream()) is None


class TestMoments:
    def test_of_a_gaussian(self):
        """4 000 draws, cut at the 0.5 and 99.5 % quantiles, 2.58 sds: that takes 2.6 % of an sd."""
        mean, tril = moments(gaussian_guide(LOC, TRIL, DTYPE), stream())
        cov = TRIL @ TRIL.T
        sd = cov.diagonal().sqrt()
        assert bool(((mean - LOC).abs() < FIVE * sd / DRAWS**0.5).all())
        found = tril @ tril.T
        error = FIVE * (2 / DRAWS) ** 0.5
        shrink = (found.diagonal() / cov.diagonal()).sqrt()
        assert bool((shrink > 0.97 - error).all() and (shrink < 0.98 + error).all())
        right = cov[0, 1] / sd.prod()
        assert abs(found[0, 1] / found.diagonal().sqrt().prod() - right) < 0.02

    def test_one_draw_far_away_does_not_matter(self):
        """Fewer than 0.5 % of the draws, however far."""

        class Lost(Guide):
            def sample(self, n, *, generator=None):
                x = super().sample(n, generator=generator)
                x[: int(0.9 * CUT * n)] = 1e12
                x[-1] = torch.nan
                return x

        guide = Lost("loc", 2, jitter=0.0, dtype=DTYPE, generator=stream())
        mean, tril = moments(guide, stream())
        assert float(mean.abs().max()) < 0.2 and float((tril - torch.eye(2)).abs().max()) < 0.2

    def test_there_are_no_correlations_above_300_dimensions(self):
        for dim, shape in ((1, (1,)), (2, (2, 2)), (FULL_RANK_LIMIT + 1, (FULL_RANK_LIMIT + 1,))):
            guide = Guide("loc", dim, jitter=0.0, generator=stream())
            assert moments(guide, stream())[1].shape == shape

    def test_a_guide_of_no_width(self):
        guide = gaussian_guide(LOC, torch.full((2,), 1e-30, dtype=DTYPE), DTYPE)
        mean, tril = moments(guide, stream())
        torch.testing.assert_close(mean, LOC)
        assert bool((tril.diagonal() > 0).all())
