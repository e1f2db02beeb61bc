"""Diagnostics against closed forms for two Gaussians, against ArviZ, and where no tail exists."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from torch import Tensor

from nfvi.fit.diagnostics import (
    Diagnostics,
    WeightedDraws,
    diagnose,
    draw_weighted,
    elbo_of,
)
from nfvi.fit.evaluation import evaluate
from nfvi.guides.guide import Guide
from nfvi.targets import LogDensity, numbers_per_point
from nfvi.targets.base import Target

N = 20_000
FIVE = 5.0
"""Standard errors allowed: false alarm 6e-7 a comparison for a normal error."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_guide(
    sd: float, mean: float = 0.0, dim: int = 1, dtype: torch.dtype = torch.float64
) -> Guide:
    """N(mean, sd²) in every coordinate."""
    guide = Guide("scale-loc", dim, jitter=0.0, dtype=dtype)
    with torch.no_grad():
        guide.flows[0].rho.fill_(math.log(math.expm1(sd)))
        guide.flows[1].loc.fill_(mean)
    return guide.requires_grad_(False)


def normal_target(dim: int = 1, log_z: float = 0.0) -> LogDensity:
    """N(0, I) with density scaled to integrate to exp(log_z)."""
    constant = log_z - 0.5 * dim * math.log(2 * math.pi)
    return LogDensity(lambda z: constant - 0.5 * (z * z).sum(-1), dim, log_normalizer=log_z)


def of(guide: Guide, target: Target, n: int = N, seed: int = 0) -> Diagnostics:
    return diagnose(draw_weighted(guide, target, n, seeded(seed)))


def moments(sd: float, mean: float) -> tuple[float, float, float]:
    """KL(q ‖ p), the variance of log p − log q, and E_q[(p/q)²], for q = N(mean, sd²), p = N(0, 1).

    log p − log q = log sd + (e² − (mean + sd e)²) / 2 with e standard normal, and
    p² / q integrates to a Gaussian integral with precision 2 − 1/sd².
    """
    a, b = (1 - sd**2) / 2, -mean * sd
    kl = -(math.log(sd) + a - mean**2 / 2)
    precision = 2 - 1 / sd**2
    exponent = (mean / sd**2) ** 2 / (2 * precision) + mean**2 / (2 * sd**2)
    return kl, 2 * a**2 + b**2, sd / math.sqrt(precision) * math.exp(exponent)


class TestClosedForms:
    """q = N(0.3, 1.3²) against p = e² N(0, 1): everything is known."""

    sd, mean, log_z = 1.3, 0.3, 2.0

    @pytest.fixture
    def found(self) -> Diagnostics:
        return of(normal_guide(self.sd, self.mean), normal_target(log_z=self.log_z))

    def test_elbo(self, found: Diagnostics) -> None:
        kl, variance, _ = moments(self.sd, self.mean)
        assert abs(found.elbo - (self.log_z - kl)) < FIVE * math.sqrt(variance / N)

    def test_elbo_se(self, found: Diagnostics) -> None:
        _, variance, _ = moments(self.sd, self.mean)
        # An sd from N draws is good to 1/√(2N) times a factor for the kurtosis, here below 3.
        assert found.elbo_se == pytest.approx(math.sqrt(variance / N), rel=15 / math.sqrt(2 * N))

    def test_log_evidence(self, found: Diagnostics) -> None:
        _, _, second = moments(self.sd, self.mean)
        assert abs(found.log_evidence - self.log_z) < FIVE * math.sqrt((second - 1) / N)

    def test_log_evidence_se(self, found: Diagnostics) -> None:
        _, _, second = moments(self.sd, self.mean)
        # The weights are bounded here, so that their variance is good to a few per cent.
        assert found.log_evidence_se == pytest.approx(math.sqrt((second - 1) / N), rel=0.05)

    def test_ess(self, found: Diagnostics) -> None:
        _, _, second = moments(self.sd, self.mean)
        assert found.efficiency == pytest.approx(1 / second, rel=0.05)
        assert found.ess == pytest.approx(found.efficiency * N)

    def test_khat_of_bounded_weights_is_small(self, found: Diagnostics) -> None:
        assert found.khat < 0.5

    def test_counts(self, found: Diagnostics) -> None:
        assert (found.draws, found.not_finite) == (N, 0)


def test_standard_errors_hold_over_many_repetitions() -> None:
    guide, target = normal_guide(1.3, 0.3), normal_target()
    found = [of(guide, target, n=2_000, seed=seed) for seed in range(200)]
    kl, _, _ = moments(1.3, 0.3)
    elbo = torch.tensor([(d.elbo + kl) / d.elbo_se for d in found])
    evidence = torch.tensor([d.log_evidence / d.log_evidence_se for d in found])
    for z in (elbo, evidence):
        # z-scores: their mean is good to 1/√200 and their sd to 1/√400, five errors each.
        assert abs(z.mean()) < FIVE / math.sqrt(200)
        assert z.std() == pytest.approx(1.0, abs=FIVE / math.sqrt(400))


class TestKhat:
    """k-hat says which side of the target the guide's tails lie on."""

    @pytest.mark.parametrize(("sd", "low", "high"), [(2.0, -9.0, 0.3), (0.5, 0.6, 1.2)])
    def test_narrow_guides_are_found_out_and_wide_ones_are_not(
        self, sd: float, low: float, high: float
    ) -> None:
        # p/q ∝ exp(−x²/2 + x²/2sd²): bounded for sd > 1, and a Pareto tail of index
        # 1 − sd² (up to logarithms) for sd < 1: 0.75 at sd = 0.5.
        assert low < of(normal_guide(sd), normal_target()).khat < high

    def test_infinite_variance_is_where_theory_puts_it(self) -> None:
        # Below sd² = ½ the weights have no variance: k = 1 − sd² > ½.
        finite = of(normal_guide(math.sqrt(0.75)), normal_target()).khat
        infinite = of(normal_guide(math.sqrt(0.25)), normal_target()).khat
        assert finite < 0.5 < infinite

    def test_it_is_arviz_s(self) -> None:
        draws = draw_weighted(normal_guide(0.7), normal_target(), 5_000, seeded())
        # Leave-one-out weighs with 1/likelihood: log q − log p in the place of log-likelihoods.
        weights, khat = array_stats.psislw((draws.log_q - draws.log_p).numpy())
        assert draws.khat == pytest.approx(float(khat), abs=1e-9)
        np.testing.assert_allclose(draws.log_weights.numpy(), weights, atol=1e-9)

    def test_the_weights_point_the_right_way(self) -> None:
        draws = draw_weighted(normal_guide(1.5), normal_target(), 5_000, seeded())
        ordered = draws.log_weights[(draws.log_p - draws.log_q).argsort()]
        assert bool((ordered.diff() >= 0).all())
        assert float(draws.log_weights.logsumexp(0)) == pytest.approx(0, abs=1e-12)

    def test_weighting_mends_the_second_moment(self) -> None:
        draws = draw_weighted(normal_guide(1.5, 0.5), normal_target(), N, seeded())
        weights = draws.log_weights.exp()
        error = math.sqrt(3 / float(1 / (weights**2).sum()))
        assert float((weights * draws.z[:, 0] ** 2).sum()) == pytest.approx(1, abs=FIVE * error)


class TestNoTail:
    """Where no Pareto tail can be fitted there is an answer all the same."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("dim", [1, 3, 100])
    def test_the_target_itself(self, dim: int, dtype: torch.dtype) -> None:
        found = of(normal_guide(1.0, dim=dim, dtype=dtype), normal_target(dim, log_z=1.0))
        rounding = 100 * dim * torch.finfo(dtype).eps
        assert found.khat < 0.5 and not math.isnan(found.khat)
        assert found.efficiency == pytest.approx(1, abs=rounding)
        assert found.elbo == pytest.approx(1, abs=rounding)
        assert found.log_evidence == pytest.approx(1, abs=rounding)
        assert 0 <= found.elbo_se < rounding and 0 <= found.log_evidence_se < rounding

    def test_equal_weights_have_no_tail(self) -> None:
        found = of(normal_guide(1.0), normal_target())
        assert found.khat == -math.inf
        assert found.ess == pytest.approx(N)

    def test_a_small_spread_keeps_its_standard_error(self) -> None:
        # E[w²] − 1 is lost to rounding here where it is not computed from deviations.
        noise = 1e-9 * torch.randn(1_000, generator=seeded(), dtype=torch.float64)
        found = diagnose(weighted(noise, torch.zeros_like(noise)))
        assert found.log_evidence_se == pytest.approx(float(noise.std()) / 1_000**0.5, rel=1e-2)

    @pytest.mark.parametrize("n", [1, 2, 5, 24])
    def test_few_draws(self, n: int) -> None:
        draws = draw_weighted(normal_guide(1.2), normal_target(), n, seeded())
        assert draws.khat == math.inf
        assert float(draws.log_weights.logsumexp(0)) == pytest.approx(0, abs=1e-12)

    def test_enough_draws(self) -> None:
        assert math.isfinite(draw_weighted(normal_guide(1.2), normal_target(), 25, seeded()).khat)

    def test_one_draw_that_outweighs_all(self) -> None:
        log_p = torch.zeros(1_000, dtype=torch.float64)
        log_p[17] = 2_000.0
        found = diagnose(weighted(log_p, torch.zeros_like(log_p)))
        assert found.khat == math.inf
        assert found.ess == pytest.approx(1)
        assert found.log_evidence == pytest.approx(2_000 - math.log(1_000))

    @pytest.mark.parametrize("spread", [10.0, 100.0, 1e4])
    def test_any_spread_gives_a_number(self, spread: float) -> None:
        log_p = spread * torch.randn(10_000, generator=seeded(), dtype=torch.float64)
        found = diagnose(weighted(log_p, torch.zeros_like(log_p)))
        assert found.khat > 0.7
        assert 1 <= found.ess <= 10_000


def weighted(log_p: Tensor, log_q: Tensor) -> WeightedDraws:
    """Draws with given log-densities, weighted as those of a guide are."""

    class Given(Guide):
        done = 0

        def rsample_and_log_prob(
            self, n: int, *, generator: object = None
        ) -> tuple[Tensor, Tensor]:
            index = torch.arange(self.done, self.done + n)
            self.done += n
            return index.double().unsqueeze(1), log_q[index]

    target = LogDensity(lambda z: -(z * z).sum(-1), 1)
    target.log_prob = lambda z: log_p[z[:, 0].long()]  # type: ignore[method-assign]
    return draw_weighted(Given("loc", 1), target, len(log_p), seeded())


class TestNotFinite:
    """Draws without a density are counted, and the rest still counts."""

    log_p = torch.linspace(-1, 1, 100, dtype=torch.float64)
    log_q = torch.zeros(100, dtype=torch.float64)

    def test_nan_is_left_out_of_the_elbo_and_has_no_weight(self) -> None:
        broken = self.log_p.clone()
        broken[:10] = torch.nan
        found = diagnose(weighted(broken, self.log_q))
        rest = self.log_p[10:]
        assert found.not_finite == 10
        assert found.elbo == pytest.approx(float(rest.mean()))
        assert found.log_evidence == pytest.approx(float(rest.logsumexp(0)) - math.log(100))

    @pytest.mark.parametrize("side", ["log_p", "log_q"])
    def test_plus_infinity_too(self, side: str) -> None:
        log_p, log_q = self.log_p.clone(), self.log_q.clone()
        (log_p if side == "log_p" else log_q)[3] = torch.inf
        draws = weighted(log_p, log_q)
        assert draws.log_weights[3] == -torch.inf
        assert diagnose(draws).not_finite == 1

    def test_outside_the_support_is_no_fault(self) -> None:
        outside = self.log_p.clone()
        outside[:50] = -torch.inf
        found = diagnose(weighted(outside, self.log_q))
        assert found.not_finite == 0
        assert found.elbo == -math.inf
        rest = self.log_p[50:]
        assert found.log_evidence == pytest.approx(float(rest.logsumexp(0)) - math.log(100))
        deviation = torch.where(outside > -torch.inf, (outside - found.log_evidence).exp(), 0.0) - 1
        assert found.log_evidence_se == pytest.approx(float(deviation.square().sum().sqrt()) / 100)

    def test_nothing_but_nan(self) -> None:
        found = diagnose(weighted(torch.full_like(self.log_p, torch.nan), self.log_q))
        assert (found.not_finite, found.ess, found.khat) == (100, 0.0, math.inf)
        assert found.log_evidence == -math.inf
        assert math.isnan(found.elbo) and math.isnan(found.elbo_se)


def test_elbo_of_is_mean_and_standard_error() -> None:
    log_p, log_q = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0.0, 0.0, 0.0])
    assert elbo_of(log_p, log_q) == pytest.approx((3.0, math.sqrt(7 / 3)))


def test_pieces_are_one_stream() -> None:
    """More draws than fit in a piece are drawn, and the target sees pieces."""
    sizes = []

    def log_p(z: Tensor) -> Tensor:
        sizes.append(len(z))
        return -0.5 * (z * z).sum(-1)

    target = LogDensity(log_p, 2, batched=True)
    numbers_per_point(target, torch.zeros(2, 2))  # counted once for a target
    sizes.clear()
    found = evaluate(Guide("loc", 2, generator=seeded()), target, 10_000, seeded())
    assert found.z.shape == (10_000, 2) and found.log_p.shape == found.log_q.shape == (10_000,)
    assert max(sizes) <= 4_096 and sum(sizes) == 10_000
    assert len(found.z.unique(dim=0)) == 10_000


def test_as_dict_rebuilds() -> None:
    found = of(normal_guide(1.3), normal_target(), n=100)
    assert Diagnostics(**found.as_dict()) == found
    assert replace(found, ess=50.0).efficiency == 0.5


@pytest.mark.cuda
def test_on_cuda() -> None:
    guide = normal_guide(1.3, 0.3).to("cuda")
    draws = draw_weighted(guide, normal_target(), N, torch.Generator("cuda").manual_seed(0))
    assert draws.z.device.type == draws.log_weights.device.type == "cuda"
    kl, variance, _ = moments(1.3, 0.3)
    assert abs(diagnose(draws).elbo + kl) < FIVE * math.sqrt(variance / N)
